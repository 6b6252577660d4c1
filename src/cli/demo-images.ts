// Two valid image files drawn by arithmetic: a PNG (RFC 2083) and a Windows bitmap.
import { crc32, deflateSync } from 'node:zlib';

type Color = readonly [red: number, green: number, blue: number];

/** A sky over hills, with some grain so that it compresses about as well as a photograph. */
function colorAt(x: number, y: number, width: number, height: number): Color {
  const grain = ((x * 73_856_093) ^ (y * 19_349_663)) & 15;
  const hill = height * (0.7 + 0.1 * Math.sin((x / width) * 9) + 0.05 * Math.sin((x / width) * 31));
  if (y > hill) return [40 + grain, 90 + grain + Math.round((60 * (y - hill)) / height), 50 + grain];
  const glow = Math.round((150 * y) / hill);
  return [80 + glow + grain, 110 + (glow >> 1) + grain, 180 + grain];
}

/** Scanlines without filter (type 0), one deflate stream, three chunks. */
export function pngImage(width: number, height: number): Uint8Array {
  const stride = width * 3 + 1;
  const pixels = Buffer.alloc(stride * height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) pixels.set(colorAt(x, y, width, height), y * stride + 1 + x * 3);
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8); // 8 bits, RGB, deflate, adaptive filters, no interlace
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([
    signature,
    pngChunk('IHDR', header),
    pngChunk('IDAT', deflateSync(pixels)),
    pngChunk('IEND', Buffer.alloc(0)),
  ]);
}

function pngChunk(type: string, body: Buffer): Buffer {
  const named = Buffer.concat([Buffer.from(type, 'latin1'), body]);
  const chunk = Buffer.alloc(named.length + 8);
  chunk.writeUInt32BE(body.length, 0);
  named.copy(chunk, 4);
  chunk.writeUInt32BE(crc32(named), named.length + 4);
  return chunk;
}

/** 24 bits a pixel, rows from the bottom, padded to 4 bytes. */
export function bmpImage(width: number, height: number): Uint8Array {
  const stride = Math.ceil((width * 3) / 4) * 4;
  const file = Buffer.alloc(54 + stride * height);
  file.write('BM', 0, 'latin1');
  file.writeUInt32LE(file.length, 2);
  file.writeUInt32LE(54, 10);
  file.writeUInt32LE(40, 14);
  file.writeInt32LE(width, 18);
  file.writeInt32LE(height, 22);
  file.writeUInt16LE(1, 26);
  file.writeUInt16LE(24, 28);
  file.writeUInt32LE(stride * height, 34);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const [red, green, blue] = colorAt(x, height - 1 - y, width, height);
      file.set([blue, green, red], 54 + y * stride + x * 3);
    }
  }
  return file;
}
