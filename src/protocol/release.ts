// release: a device tells a holder which receipts it lets go of. The signed release is the authority, not the stream it came on.
//
// Goals: names receipts by their nonce, so that a replay cannot touch a newer receipt; says how many it found; safe to send again.
// Non-goals: deleting (the holder collects when it likes); releasing blocks that no named receipt covers.
//
// | type | frame    | body                                          | limit    |
// |------|----------|-----------------------------------------------|----------|
// | 16   | release  | envelope of a release (receipt.ts)            | 193 KiB  |
// | 17   | released | {released: receipts that stand no longer}     | 32 bytes |
import type { Stream } from '@libp2p/interface';
import * as v from 'valibot';
import { DezentError } from '../errors.ts';
import { openChannel } from './channel.ts';
import type { Channel, ChannelSettings, FrameTable } from './channel.ts';
import { decodeBody, encodeBody } from './frame.ts';
import { decodeEnvelope, encodeEnvelope } from './signature.ts';
import type { Envelope } from './signature.ts';

const RELEASE = 16;
const RELEASED = 17;

export const RELEASE_FRAMES: FrameTable = {
  [RELEASE]: { name: 'release', maxBytes: 193 * 1024 },
  [RELEASED]: { name: 'released', maxBytes: 32 },
};

const releasedSchema = v.strictObject({ released: v.pipe(v.number(), v.integer(), v.minValue(0)) });

/** Sends a release; returns how many of the named receipts it ended, those ended before included. Throws PEER_REFUSED, UNREACHABLE. */
export async function sendRelease(
  channel: Channel,
  release: Envelope,
  options: { signal?: AbortSignal } = {},
): Promise<number> {
  const call = channel.open(options);
  try {
    await call.send(RELEASE, encodeEnvelope(release), { last: true });
    const frame = await call.next();
    if (frame?.type !== RELEASED) throw new DezentError('BAD_FRAME', 'a release was not answered');
    return decodeBody('released', releasedSchema, frame.body).released;
  } finally {
    call.cancel(new DezentError('CANCELLED', 'the release has ended'));
  }
}

export interface ReleaseServer {
  /** Judges and carries out a release, durably; returns the number of named receipts that stand no longer. Throws BAD_RECORD, NOT_ALLOWED. */
  release(envelope: Envelope): Promise<number>;
  onFault?: (error: DezentError) => void;
}

export function serveRelease(stream: Stream, needs: ReleaseServer, settings: Partial<ChannelSettings> = {}): Channel {
  return openChannel(stream, {
    frames: RELEASE_FRAMES,
    settings,
    ...(needs.onFault && { onFault: needs.onFault }),
    async onCall(call) {
      const frame = await call.next();
      if (frame?.type !== RELEASE) throw new DezentError('BAD_FRAME', 'a call of release begins with a release');
      const released = await needs.release(decodeEnvelope(frame.body));
      await call.send(RELEASED, encodeBody({ released }), { last: true });
    },
  });
}
