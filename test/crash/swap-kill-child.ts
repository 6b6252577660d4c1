// The process that swap-crash.test.ts kills: does one flow and ends itself with SIGKILL at the k-th step.
import { openTestFiles } from '../node/files/files-of.ts';
import { openFailPoints, type FailPoints } from '../suites/fail-points.ts';
import { ALONE, FLOWS } from './swap-flows.ts';

const [top = '', index = '', k = ''] = process.argv.slice(2);
const late: { points?: FailPoints } = {};
const files = await openTestFiles({ ...ALONE, top, onStateWrite: () => late.points?.step('state') });
late.points = openFailPoints(files.root);
late.points.arm(Number(k), 'kill');
await FLOWS[Number(index)]?.run(files);
process.exit(0);
