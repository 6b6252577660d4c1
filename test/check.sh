#!/bin/sh
# Types, lint, format, dead code and the tests that need no network: in seconds, before every commit.
set -e
cd "$(dirname "$0")/.."
npm run -s ready
PATH="$PWD/node_modules/.bin:$PATH"
tsc -p tsconfig.json & types=$!
oxlint --type-aware src test bench & lint=$!
oxfmt --check src test bench & format=$!
knip --no-progress & dead=$!
node --test --test-isolation=none --test-reporter=dot "test/{store,protocol,node,cli}/*.test.ts" "test/*.test.ts"
wait $types; wait $lint; wait $format; wait $dead
