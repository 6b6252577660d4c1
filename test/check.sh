#!/bin/sh
# Types, lint, format, dead code and the tests that start no node: before every commit. `npm test` runs them all.
cd "$(dirname "$0")/.." || exit 1
npm run -s ready || exit 1
PATH="$PWD/node_modules/.bin:$PATH"
jobs=''
start() {
  "$@" & jobs="$jobs $!"
}
quick() {
  node --test --test-isolation=none --test-reporter=dot "$@"
}
start tsc -p tsconfig.json
start oxlint --type-aware src test bench
start oxfmt --check src test bench
start knip --no-progress --no-config-hints
start quick "test/store/*.test.ts" "test/*.test.ts" "test/cli/{service,demo-sample}.test.ts"
start quick "test/protocol/*.test.ts"
start quick "test/node/**/*.test.ts"
failed=0
for job in $jobs; do
  wait "$job" || failed=1
done
exit $failed
