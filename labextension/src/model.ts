/** What the kernel says, narrowed once from `unknown` to types that the rest can trust. */

export type Status = 'pending' | 'running' | 'ok' | 'failed' | 'cancelled';

export const MIME_TYPE = 'application/vnd.nbscale.run+json';

export interface Summary {
  id: string;
  function: string;
  status: Status;
  total: number | null;
  done: number;
  ok: number;
  failed: number;
  cancelled: number;
  running: number;
  pending: number;
  limit: number;
  elapsed: number;
  rate: number | null;
  eta: number | null;
  startedAt: number;
}

export interface Row {
  index: number;
  input: string;
  status: Status;
  value: string;
  duration: number | null;
  attempts: number;
  worker: string;
}

export interface Detail extends Row {
  traceback: string;
  stdout: string;
  repr: string;
}

export interface RowPage {
  run: Summary | null;
  total: number;
  rows: Row[];
}

export interface FunctionInfo {
  name: string;
  signature: string;
  limit: number;
  options: [string, string][];
  app: string;
}

export interface KernelState {
  version: string;
  functions: FunctionInfo[];
  runs: Summary[];
}

export interface SavedRun {
  run: Summary;
  rows: Row[];
  failed: Detail[];
  live: boolean;
}

const STATUSES: readonly string[] = ['pending', 'running', 'ok', 'failed', 'cancelled'];

type Fields = Readonly<Record<string, unknown>>;

export function asFields(value: unknown): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Fields)
    : {};
}

function asList(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

export function asText(value: unknown): string {
  if (typeof value === 'string') {
    return value;
  }
  if (typeof value === 'number' || typeof value === 'boolean') {
    return String(value);
  }
  return value === null || value === undefined ? '' : JSON.stringify(value);
}

function asNumber(value: unknown): number {
  return asOptionalNumber(value) ?? 0;
}

function asOptionalNumber(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}

function asStatus(value: unknown): Status {
  return typeof value === 'string' && STATUSES.includes(value) ? (value as Status) : 'pending';
}

/** A run's summary, or null where the data is none. */
export function parseSummary(value: unknown): Summary | null {
  const data = asFields(value);
  if (typeof data['id'] !== 'string') {
    return null;
  }
  return {
    id: data['id'],
    function: asText(data['function']),
    status: asStatus(data['status']),
    total: asOptionalNumber(data['total']),
    done: asNumber(data['done']),
    ok: asNumber(data['ok']),
    failed: asNumber(data['failed']),
    cancelled: asNumber(data['cancelled']),
    running: asNumber(data['running']),
    pending: asNumber(data['pending']),
    limit: asNumber(data['limit']),
    elapsed: asNumber(data['elapsed_s']),
    rate: asOptionalNumber(data['rate']),
    eta: asOptionalNumber(data['eta_s']),
    startedAt: asNumber(data['started_at'])
  };
}

export function parseRow(value: unknown): Row {
  const data = asFields(value);
  return {
    index: asNumber(data['index']),
    input: asText(data['input']),
    status: asStatus(data['status']),
    value: asText(data['value']),
    duration: asOptionalNumber(data['duration']),
    attempts: asNumber(data['attempts']),
    worker: asText(data['worker'])
  };
}

export function parseDetail(value: unknown): Detail {
  const data = asFields(value);
  return {
    ...parseRow(value),
    traceback: asText(data['traceback']),
    stdout: asText(data['stdout']),
    repr: asText(data['repr'])
  };
}

export function parsePage(value: unknown): RowPage {
  const data = asFields(value);
  return {
    run: parseSummary(data['run']),
    total: asNumber(data['total']),
    rows: asList(data['rows']).map(parseRow)
  };
}

export function parseState(value: unknown): KernelState {
  const data = asFields(value);
  return {
    version: asText(data['version']),
    functions: asList(data['functions']).map(item => {
      const info = asFields(item);
      return {
        name: asText(info['name']),
        signature: asText(info['signature']),
        limit: asNumber(info['limit']),
        options: Object.entries(asFields(info['options'])).map(([key, option]): [string, string] => [
          key,
          asText(option)
        ]),
        app: asText(info['app'])
      };
    }),
    runs: asList(data['runs'])
      .map(parseSummary)
      .filter(run => run !== null)
  };
}

/** The data of a saved output; null where it holds no run. */
export function parseSaved(value: unknown): SavedRun | null {
  const data = asFields(value);
  const run = parseSummary(data['run']);
  return run === null
    ? null
    : {
        run,
        rows: asList(data['rows']).map(parseRow),
        failed: asList(data['failed']).map(parseDetail),
        live: data['live'] === true
      };
}

export function isSettled(run: Summary): boolean {
  return run.status !== 'running' && run.status !== 'pending';
}

/** A duration as a person reads it: 3 ms, 1.2 s, 4 min 05 s, 2 h 03 min. */
export function formatSeconds(seconds: number | null): string {
  if (seconds === null) {
    return '';
  }
  if (seconds < 0.001) {
    return `${Math.round(seconds * 1e6)} µs`;
  }
  if (seconds < 1) {
    return `${Math.round(seconds * 1000)} ms`;
  }
  if (seconds < 59.95) {
    return `${seconds.toFixed(1)} s`;
  }
  const whole = Math.round(seconds);
  const pad = (part: number): string => String(part).padStart(2, '0');
  return whole < 3600
    ? `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`
    : `${Math.floor(whole / 3600)} h ${pad(Math.floor((whole % 3600) / 60))} min`;
}

const COUNT = new Intl.NumberFormat('en');

export function formatCount(count: number): string {
  return COUNT.format(count);
}

/** The line beside a run's bar. */
export function describeRun(run: Summary): string {
  const parts = [
    run.total === null
      ? `${formatCount(run.done)} done`
      : `${formatCount(run.done)} / ${formatCount(run.total)}`
  ];
  if (run.failed > 0) {
    parts.push(`${formatCount(run.failed)} failed`);
  }
  if (run.cancelled > 0) {
    parts.push(`${formatCount(run.cancelled)} cancelled`);
  }
  if (isSettled(run)) {
    parts.push(formatSeconds(run.elapsed));
    return parts.join(' · ');
  }
  parts.push(`${run.running} of ${run.limit} running`);
  if (run.rate !== null) {
    parts.push(`${run.rate >= 10 ? formatCount(Math.round(run.rate)) : run.rate.toFixed(1)}/s`);
  }
  if (run.eta !== null) {
    parts.push(`${formatSeconds(run.eta)} left`);
  }
  return parts.join(' · ');
}
