// What the owner should know now, for `status` and the log: one text per subject, the newest kept, gone when it is no longer true.

/** More would not be read. */
const MAX_WARNINGS = 50;

export interface Warnings {
  /** `subject` names what it is about ("liar:PEER"); a later text on it takes the place of the earlier. */
  raise(subject: string, text: string): void;
  clear(subject: string): void;
  list(): string[];
}

export function openWarnings(onRaised: (text: string) => void): Warnings {
  const texts = new Map<string, string>();
  return {
    raise(subject, text) {
      if (texts.get(subject) === text) return;
      texts.delete(subject);
      texts.set(subject, text);
      const oldest = texts.keys().next().value;
      if (texts.size > MAX_WARNINGS && oldest !== undefined) texts.delete(oldest);
      onRaised(text);
    },
    clear: (subject) => void texts.delete(subject),
    list: () => [...texts.values()],
  };
}
