// An owner's keys, all derived from the recovery phrase: 24 BIP39 words, shown once and never stored.
// Each is HKDF-SHA256(entropy of the phrase, label `dezent/1/owner/…`), so none tells anything about another.
import { generateMnemonic, mnemonicToEntropy } from '@scure/bip39';
import { wordlist } from '@scure/bip39/wordlists/english.js';
import { DezentError } from '../errors.ts';
import { derive } from '../store/secrets.ts';
import { boxKeyFromSeed, type BoxKey } from './sealed-box.ts';
import { idText, signingKeyFromSeed, type SigningKey } from './signature.ts';

/** 24 words carry 256 bits and 8 bits of checksum. */
export const PHRASE_WORDS = 24;
const PHRASE_ENTROPY_BITS = 256;
const WORDS: ReadonlySet<string> = new Set(wordlist);

export interface OwnerKeys {
  /** Text of the signing key's public half: who the owner is. */
  ownerId: string;
  /** Founds and overrides the owner's records. */
  signing: SigningKey;
  /** Every epoch and the split secret are sealed to it too. */
  recovery: BoxKey;
  /** Proves to any member that its holder may fetch the owner's records. */
  recoveryGuest: SigningKey;
}

/** 24 new random words, with one space between. */
export function newPhrase(): string {
  return generateMnemonic(wordlist, PHRASE_ENTROPY_BITS);
}

/** The keys of a phrase; case and white space do not matter. Throws BAD_PHRASE, naming the first wrong word by its number only. */
export function ownerKeysOf(phrase: string): OwnerKeys {
  const words = phrase.normalize('NFKD').trim().toLowerCase().split(/\s+/u);
  if (words.length !== PHRASE_WORDS)
    throw new DezentError('BAD_PHRASE', `a recovery phrase has ${PHRASE_WORDS} words, this one ${words.length}`);
  const unknown = words.findIndex((word) => !WORDS.has(word));
  if (unknown !== -1)
    throw new DezentError('BAD_PHRASE', `word ${unknown + 1} of the recovery phrase is not in the word list`);
  const entropy = entropyOf(words);
  const signing = signingKeyFromSeed(derive(entropy, 'owner/signing'));
  return {
    ownerId: idText(signing.publicKey),
    signing,
    recovery: boxKeyFromSeed(derive(entropy, 'owner/recovery')),
    recoveryGuest: signingKeyFromSeed(derive(entropy, 'owner/recovery-guest')),
  };
}

function entropyOf(words: readonly string[]): Uint8Array {
  try {
    return mnemonicToEntropy(words.join(' '), wordlist);
  } catch {
    // Its only failure left is the checksum; the cause is dropped because it may quote the words.
    throw new DezentError(
      'BAD_PHRASE',
      'the words of the recovery phrase do not belong together: one is wrong or two are swapped',
    );
  }
}
