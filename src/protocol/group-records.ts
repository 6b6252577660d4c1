// What two peers of a group exchange first on every connection, as the encoded envelopes that were received or signed here.

/** Encoded envelopes (signature.ts), each forwarded byte for byte. */
export interface GroupRecords {
  /** Member list entries, parents before children. */
  entries: Uint8Array[];
  /** Owner records: one for each owner, more while a fork is not merged. */
  owners: Uint8Array[];
  /** One for each device and incarnation. */
  heads: Uint8Array[];
}

/** Member list entries, owner records and heads in one exchange; more is refused before it is looked at. */
export const MAX_ENTRIES = 1024;
export const MAX_OWNER_RECORDS = 1024;
export const MAX_HEADS = 4096;
