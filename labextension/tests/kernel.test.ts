import { expect, test } from 'vitest';
import { askKernel, NoReplyError } from '../src/kernel';
import type { ControlKernel } from '../src/kernel';

function kernelThat(done: Promise<unknown>): ControlKernel {
  return { username: 'u', clientId: 'c', sendControlMessage: () => ({ done }) };
}

test('a kernel without a handler is given up on', async () => {
  const silent = kernelThat(new Promise(() => undefined));
  await expect(askKernel(silent, 'nbscale_state_request', {}, 10)).rejects.toThrow(NoReplyError);
});

test('the content of the reply is handed on', async () => {
  const kernel = kernelThat(Promise.resolve({ content: { status: 'ok', version: '1' } }));
  expect(await askKernel(kernel, 'nbscale_state_request', {})).toMatchObject({ version: '1' });
});

test('an error in the reply is thrown', async () => {
  const kernel = kernelThat(Promise.resolve({ content: { status: 'error', message: 'no run' } }));
  await expect(askKernel(kernel, 'nbscale_rows_request', {})).rejects.toThrow('no run');
});
