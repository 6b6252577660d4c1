import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { base32 } from 'multiformats/bases/base32';
import { blockIdFromDigest } from '../../src/store/block.ts';
import { keyedHash } from '../../src/store/secrets.ts';
import { decodeStub, encodeStub, hasStubMagic, STUB_MAX_BYTES, type Stub } from '../../src/store/stub.ts';
import { flipEach, OTHER_KEYS, testBytes, TEST_KEYS, TEST_SECRETS, withCode } from '../suites/content.ts';

const own = { ownerId: base32.encode(testBytes(32, 30)), groupId: base32.encode(testBytes(32, 31)) };
const epochId = Uint8Array.from(TEST_KEYS.current.id);
const STUB: Stub = {
  epoch: epochId,
  fileId: Uint8Array.from(testBytes(16, 32)),
  ...own,
  mode: 0o644,
  mtimeUs: 1_700_000_000_123_456,
  name: 'report – 100 %.pdf',
  root: { block: blockIdFromDigest(testBytes(32, 33)), offset: 0, length: 812 },
  sizeBytes: 123_456_789,
};

const bytesOf = (length: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ minLength: length, maxLength: length });
const place = fc.nat({ max: 4 * 1024 * 1024 });
const stubs: fc.Arbitrary<Stub> = fc.record(
  {
    epoch: fc.constantFrom(...TEST_SECRETS.epochs.map(({ id }) => Uint8Array.from(id))),
    fileId: bytesOf(16),
    ownerId: fc.constant(own.ownerId),
    groupId: fc.constant(own.groupId),
    mode: fc.nat({ max: 0o7777 }),
    mtimeUs: fc.maxSafeInteger(),
    name: fc.string({ unit: 'binary', maxLength: 60 }),
    root: fc.record(
      { block: bytesOf(32).map(blockIdFromDigest), offset: place, length: place },
      { noNullPrototype: true },
    ),
    sizeBytes: fc.maxSafeNat(),
  },
  { noNullPrototype: true },
);

const read = (bytes: Uint8Array): Stub => {
  const stub = decodeStub(bytes, TEST_KEYS, own);
  return { ...stub, epoch: Uint8Array.from(stub.epoch) };
};
const isBad = withCode('BAD_STUB');

/** The stub's text after a change, with a mac that is right for it: what only the owner could write. */
function resigned(change: (text: string) => string): Buffer {
  const text = change(encodeStub(STUB, TEST_KEYS).toString());
  const mac = keyedHash(TEST_KEYS.current.stub, Buffer.from(text.replace(/^mac .*\n/m, ''))).toString('hex');
  return Buffer.from(text.replace(/^mac .*$/m, `mac ${mac}`));
}

test('decodeStub is the inverse of encodeStub', () => {
  fc.assert(
    fc.property(stubs, (stub) => {
      const bytes = encodeStub(stub, TEST_KEYS);
      assert.ok(bytes.length <= STUB_MAX_BYTES && hasStubMagic(bytes));
      assert.deepEqual(read(bytes), stub);
    }),
  );
});

test('any name at all gives a stub under 1 KiB that reads; only what was cut or is no Unicode differs', () => {
  const names = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 3000 }),
    fc.string({ unit: fc.constantFrom('%', '\n', '\uD800', '🌊', 'a') }),
  );
  fc.assert(
    fc.property(names, (name) => {
      const bytes = encodeStub({ ...STUB, name }, TEST_KEYS);
      assert.ok(bytes.length <= STUB_MAX_BYTES);
      assert.ok(name.toWellFormed().startsWith(read(bytes).name));
      assert.deepEqual(encodeStub(read(bytes), TEST_KEYS), bytes);
    }),
  );
});

test('the largest fields fit', () => {
  const wide = { offset: 4_194_304, length: 4_194_304 };
  const bytes = encodeStub(
    {
      ...STUB,
      name: '\x01'.repeat(300),
      mode: 0o7777,
      sizeBytes: Number.MAX_SAFE_INTEGER,
      mtimeUs: Number.MIN_SAFE_INTEGER,
      root: { ...STUB.root, ...wide },
    },
    TEST_KEYS,
  );
  assert.ok(bytes.length < STUB_MAX_BYTES, `${bytes.length}`);
  assert.equal(read(bytes).mtimeUs, Number.MIN_SAFE_INTEGER);
});

test('a stub is plain lines that say what it is, without key or plain path', () => {
  const lines = encodeStub(STUB, TEST_KEYS).toString().split('\n');
  assert.equal(lines[0], 'dezent-stub 1');
  assert.match(lines[1] ?? '', /dezent open/);
  assert.deepEqual(
    lines.slice(2).map((line) => line.split(' ')[0]),
    ['epoch', 'file', 'group', 'mac', 'mode', 'mtime', 'name', 'owner', 'root', 'size', ''],
  );
  assert.ok(
    lines.includes('name report – 100 %25.pdf') &&
      lines.includes('mode 644') &&
      lines.includes('mtime 1700000000.123456'),
  );
});

test('every changed byte is noticed', () => {
  flipEach(encodeStub(STUB, TEST_KEYS), (altered) => {
    assert.throws(() => decodeStub(altered, TEST_KEYS, own), withCode('BAD_STUB', 'FOREIGN_STUB', 'NEWER_VERSION'));
  });
});

test('a changed line is BAD_STUB, or FOREIGN_STUB where it names the owner or group', () => {
  const text = encodeStub(STUB, TEST_KEYS).toString();
  for (const [index, line] of text.split('\n').entries()) {
    const altered = Buffer.from(text.replace(line, `${line}x`));
    const foreign = /^(owner|group) /.test(line);
    if (line !== '') assert.throws(() => read(altered), foreign ? withCode('FOREIGN_STUB') : isBad, `line ${index}`);
  }
});

test('truncated, lengthened, swapped, CRLF and other spellings are BAD_STUB', () => {
  const bytes = encodeStub(STUB, TEST_KEYS);
  const text = bytes.toString();
  for (let length = 0; length < bytes.length; length += 1) {
    assert.throws(() => read(bytes.subarray(0, length)), isBad, `${length} bytes`);
  }
  const spellings: Record<string, string> = {
    CRLF: text.replaceAll('\n', '\r\n'),
    'one CRLF': text.replace('\n', '\r\n'),
    'an empty line more': `${text}\n`,
    'a line more': `${text}zeta 1\n`,
    'a line twice': text.replace(/^(size .*\n)/m, '$1$1'),
    'no last newline': text.slice(0, -1),
    'a NUL at the end': `${text}\0`,
    'a byte order mark': `\uFEFF${text}`,
    'two lines swapped': text.replace(/^(owner .*\n)(root .*\n)/m, '$2$1'),
    'a space at the end of a line': text.replace('mode 644\n', 'mode 644 \n'),
    'two spaces': text.replace('mode 644', 'mode  644'),
    'a leading zero': text.replace('mode 644', 'mode 0644'),
    'mac in capitals': text.replace(/^mac .*$/m, (line) => `mac ${line.slice(4).toUpperCase()}`),
    'no about line': text.replace(/\n.*\n/, '\n'),
    'another about line': text.replace('This file', 'Thys file'),
  };
  for (const [name, spelling] of Object.entries(spellings)) {
    assert.throws(() => read(Buffer.from(spelling)), isBad, name);
  }
});

test('even with a right mac only the canonical form is read', () => {
  assert.deepEqual(read(resigned((text) => text)), STUB);
  const forms: Record<string, (text: string) => string> = {
    'a leading zero': (text) => text.replace('mode 644', 'mode 0644'),
    'mode not octal': (text) => text.replace('mode 644', 'mode 888'),
    'size of 17 digits': (text) => text.replace('size 123456789', 'size 12345678901234567'),
    'negative size': (text) => text.replace('size 1', 'size -1'),
    'mtime without fraction': (text) => text.replace('.123456', ''),
    'root without length': (text) => text.replace(/^(root \S+ \S+) .*$/m, '$1'),
    'root that names no block': (text) => text.replace('root bafkr4i', 'root bafkr4z'),
    'an escape that needs none': (text) => text.replace('report', '%72eport'),
    'a raw control byte': (text) => text.replace('report', 'rep\x07rt'),
    'epoch in capitals': (text) => text.replace(/^epoch .*$/m, (line) => `epoch ${line.slice(6).toUpperCase()}`),
    'epoch of 7 bytes': (text) => text.replace(/^(epoch .*)..$/m, '$1'),
    'file of 15 bytes': (text) => text.replace(/^file .*$/m, `file ${base32.encode(testBytes(15, 1))}`),
    'file in another base': (text) => text.replace(/^file b/m, 'file z'),
  };
  for (const [name, form] of Object.entries(forms)) {
    const signed = encodeStub(STUB, TEST_KEYS).toString();
    assert.notEqual(form(signed), signed, name);
    assert.throws(() => read(resigned(form)), isBad, name);
  }
});

test('what is no stub at all is BAD_STUB and has no magic, or is too long', () => {
  const fortran = Buffer.from('      PROGRAM HELLO\n      PRINT *, "hello"\n      END\n');
  const megabyte = Buffer.alloc(1024 * 1024);
  for (const bytes of [Buffer.alloc(0), fortran, megabyte, testBytes(500, 1), Buffer.from('dezent-stub')]) {
    assert.equal(hasStubMagic(bytes), false);
    assert.throws(() => read(bytes), isBad);
  }
  const long = Buffer.concat([encodeStub(STUB, TEST_KEYS), megabyte]);
  assert.equal(hasStubMagic(long), true);
  assert.throws(() => read(long), isBad);
});

test('any bytes after the magic are refused with a DezentError', () => {
  const any = fc.oneof(
    fc.uint8Array({ maxLength: 1100 }),
    fc.string({ unit: 'binary' }).map((text) => Buffer.from(text)),
  );
  const starts = fc.constantFrom('dezent-stub ', 'dezent-stub 1\n', 'dezent-stub 2\n', 'dezent-stub 99999999999\n');
  fc.assert(
    fc.property(starts, any, (start, rest) => {
      const bytes = Buffer.concat([Buffer.from(start), rest]);
      assert.throws(() => read(bytes), withCode('BAD_STUB', 'NEWER_VERSION'));
    }),
  );
});

test('a newer version is NEWER_VERSION, also where it is larger than ours may be', () => {
  const text = encodeStub(STUB, TEST_KEYS).toString();
  for (const version of ['2', '10', '99999999']) {
    const newer = Buffer.from(text.replace('dezent-stub 1', `dezent-stub ${version}`));
    assert.throws(() => read(newer), withCode('NEWER_VERSION'));
    assert.throws(() => read(Buffer.concat([newer, Buffer.alloc(5000)])), withCode('NEWER_VERSION'));
  }
  for (const version of ['0', '-1', '1.5', ' 2', '2 ', '0x2', 'two', '']) {
    const odd = Buffer.from(text.replace('dezent-stub 1', `dezent-stub ${version}`));
    assert.throws(() => read(odd), isBad, JSON.stringify(version));
  }
});

test('the stub of another owner or group is FOREIGN_STUB', () => {
  const bytes = encodeStub(STUB, TEST_KEYS);
  const other = base32.encode(testBytes(32, 40));
  assert.throws(() => decodeStub(bytes, TEST_KEYS, { ...own, ownerId: other }), withCode('FOREIGN_STUB'));
  assert.throws(() => decodeStub(bytes, TEST_KEYS, { ...own, groupId: other }), withCode('FOREIGN_STUB'));
  const foreign = encodeStub({ ...STUB, ownerId: other, epoch: OTHER_KEYS.current.id }, OTHER_KEYS);
  assert.throws(() => read(foreign), withCode('FOREIGN_STUB'));
});

test("a stranger's stub puts no control bytes into our messages", () => {
  const text = encodeStub(STUB, TEST_KEYS).toString().replace(own.ownerId, 'evil\x1b[2J');
  assert.throws(
    () => read(Buffer.from(text)),
    (error: Error) => isBad(error) && !error.message.includes('\x1b'),
  );
});

test('a stub of an epoch that this device does not know is BAD_STUB, and the hint speaks of peers', () => {
  const unknown = encodeStub({ ...STUB, epoch: OTHER_KEYS.current.id }, OTHER_KEYS);
  assert.throws(
    () => read(unknown),
    (error: Error & { hint?: string }) => isBad(error) && /peers/.test(error.hint ?? ''),
  );
});

test('a stub made under an older epoch still reads', () => {
  const [older] = TEST_SECRETS.epochs;
  assert.ok(older);
  const stub = { ...STUB, epoch: Uint8Array.from(older.id) };
  assert.deepEqual(read(encodeStub(stub, TEST_KEYS)), stub);
});
