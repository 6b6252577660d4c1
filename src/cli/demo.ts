// Placeholder while the demo is being written.
import { DezentError } from '../errors.ts';
import type { Output } from './output.ts';

export interface DemoValue {
  files: number;
  stubbed: number;
  freedBytes: number;
  restored: number;
  identical: boolean;
  stoppedHolder: string;
}

export async function runDemo(_output: Output): Promise<DemoValue> {
  throw new DezentError('INTERNAL', 'the demo is not built yet');
}
