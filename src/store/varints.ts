// Reads the varints (7 bits a byte, lowest first) of LevelDB's files; behind the end everything is undefined.

export interface VarintReader {
  number(): number | undefined;
  /** Skips a length and so many bytes. */
  skipString(): void;
  skip(bytes: number): void;
  atEnd(): boolean;
}

export function varintReader(bytes: Uint8Array): VarintReader {
  let at = 0;
  function number(): number | undefined {
    let value = 0;
    for (let scale = 1; at < bytes.length; scale *= 128) {
      const byte = bytes[at++] ?? 0;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    return undefined;
  }
  const skip = (count: number): void => {
    at += count;
  };
  return { number, skip, skipString: () => skip(number() ?? 0), atEnd: () => at >= bytes.length };
}
