// Gives the memory of large buffers back at once. Left to the garbage collector, 64 MiB and more of it would be waiting in each thread,
// and every new buffer would be made of pages that the system has to clear first.

/** Smaller ones may share their memory with others. */
const FREE_FROM_BYTES: number = 128 * 1024;

/** The bytes are not to be used any more, by nobody; nor anything that shares their memory. */
export function freeMemory({ buffer, byteOffset, byteLength }: Uint8Array): void {
  if (byteLength >= FREE_FROM_BYTES && byteOffset === 0 && buffer instanceof ArrayBuffer) buffer.transfer(0);
}
