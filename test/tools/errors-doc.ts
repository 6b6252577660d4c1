// Writes docs/errors.md from the table in src/errors.ts (npm run docs:errors); test/docs.test.ts keeps the two equal.
import { writeFileSync } from 'node:fs';
import { ERROR_CODES } from '../../src/errors.ts';

const HEAD = `# Errors

Every refusal and failure has one of these codes. With \`--json\` it is \`{"error":{"code","message","hint"}}\` on stdout; else two lines on
stderr: what happened to which thing, and what to do. The message of the moment is more exact than this table.

Exit codes: 0 done · 1 failed · 2 wrong usage · 3 refused because it would not be safe · 4 not found, or not reachable now · 5 no node is running.

This page is made from the table in \`src/errors.ts\` by \`npm run docs:errors\`.

| code | exit | what it means | what to do |
|---|---|---|---|
`;

export function errorsDoc(): string {
  const rows = Object.entries(ERROR_CODES).map(
    ([code, { exit, means, todo }]) => `| \`${code}\` | ${exit} | ${means} | ${todo} |`,
  );
  return `${HEAD}${rows.join('\n')}\n`;
}

if (import.meta.main) writeFileSync(new URL('../../docs/errors.md', import.meta.url), errorsDoc());
