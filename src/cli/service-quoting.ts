// Words and text as systemd units, XML and Windows command lines want them, for any path a file system allows.

/**
 * One word of a unit file (systemd.syntax(7), "Quoting"): always quoted, C escapes, `%` doubled (specifiers).
 * In commands `$` starts a variable (systemd.service(5), "Command lines"), so it is doubled there.
 */
export function systemdWord(text: string, inCommand = false): string {
  const escaped = text
    .replace(/["\\]/g, (character) => `\\${character}`)
    .replace(/\p{Cc}/gu, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`)
    .replaceAll('%', '%%');
  return `"${inCommand ? escaped.replaceAll('$', '$$$$') : escaped}"`;
}

/** The inverse of {@link systemdWord} outside commands, without its quotes. */
export function unquoteSystemd(text: string): string {
  return text
    .replaceAll('%%', '%')
    .replace(/\\(?:x([0-9a-f]{2})|(.))/g, (_, hex: string | undefined, character: string | undefined) =>
      hex === undefined ? (character ?? '') : String.fromCharCode(Number.parseInt(hex, 16)),
    );
}

/** Free text such as Description=: one line without specifiers or a trailing backslash. */
export function systemdText(text: string): string {
  return text.replace(/[\p{Cc}\\]/gu, '?').replaceAll('%', '%%');
}

export function xmlText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}

export function xmlUnescape(text: string): string {
  return text.replaceAll('&quot;', '"').replaceAll('&gt;', '>').replaceAll('&lt;', '<').replaceAll('&amp;', '&');
}

/** One argument for CommandLineToArgvW; names on Windows hold no quotes, but a trailing backslash must not escape ours. */
export function quoteWindows(text: string): string {
  if (/^[\w\-./\\:=]+$/.test(text) && !text.endsWith('\\')) return text;
  return `"${text.replace(/(\\*)"/g, '$1$1\\"').replace(/\\+$/, '$&$&')}"`;
}
