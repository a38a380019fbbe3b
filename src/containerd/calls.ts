import {
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
  status,
} from '@grpc/grpc-js';
import type { CallStatus } from './status.ts';

/** How a call went. */
export interface CallRecord {
  /** The full name of the service. */
  readonly service: string;
  readonly method: string;
  /** The key in the request, if it has one. */
  readonly key: string | undefined;
  /** The name in the request, if it has one. */
  readonly name: string | undefined;
  /** gRPC's word for how it ended. */
  readonly code: string;
  /** What the client was told, if it did not end well. */
  readonly message: string;
  /** How long it took, in milliseconds. */
  readonly duration: number;
}

/** What is known of a call while it runs. */
interface Running {
  readonly service: string;
  readonly call: ServerInterceptingCallInterface;
}

/** Keeps account of the calls of a server, whatever their service. */
export class Calls {
  readonly #running = new Set<Running>();
  readonly #onEnd: (record: CallRecord) => void;

  constructor(onEnd: (record: CallRecord) => void) {
    this.#onEnd = onEnd;
  }

  /** For the option `interceptors` of a server. */
  readonly interceptor: ServerInterceptor = ({ path }, call) => {
    const [, service = '', method = ''] = path.split('/');
    const started = performance.now();
    const deadline = Number(call.getDeadline());
    let subject: Subject = { key: undefined, name: undefined };
    let complete = false;
    const end = ({ code, details }: CallStatus): void => {
      if (!this.#running.delete(running)) return;
      const message = code === status.OK ? '' : details;
      const duration = performance.now() - started;
      this.#onEnd({ service, method, ...subject, code: status[code], message, duration });
    };
    const observed = new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMessage: (message: unknown, go) => {
            subject = subjectOf(message);
            go(message);
          },
          onReceiveHalfClose: (go) => {
            complete = true;
            go();
          },
          // Comes at the end of every call. Of those that the library has ended itself, nothing else tells.
          onCancel: () => end(abandoned(deadline, complete)),
        }),
      sendStatus: (told, next) => {
        end({ code: told.code ?? status.UNKNOWN, details: told.details ?? '' });
        next(told);
      },
    });
    const running: Running = { service, call: observed };
    this.#running.add(running);
    return observed;
  };

  /** Ends the calls of other services than the given one, which may go on for as long as their clients like. */
  endOthers(service: string): void {
    for (const { call } of [...this.#running].filter((running) => running.service !== service)) {
      call.sendStatus({ code: status.UNAVAILABLE, details: 'the server is stopping' });
    }
  }
}

function abandoned(deadline: number, complete: boolean): CallStatus {
  if (Date.now() >= deadline) {
    return { code: status.DEADLINE_EXCEEDED, details: 'its deadline has passed' };
  }
  const details = complete
    ? 'the client has cancelled it'
    : 'it ended before a request of proper size had arrived';
  return { code: status.CANCELLED, details };
}

type Subject = Pick<CallRecord, 'key' | 'name'>;

/** What a request is about. */
function subjectOf(message: unknown): Subject {
  const info: unknown = fieldOf(message, 'info');
  return { key: textOf(message, 'key'), name: textOf(message, 'name') ?? textOf(info, 'name') };
}

function fieldOf(message: unknown, field: string): unknown {
  return typeof message === 'object' && message !== null ? Reflect.get(message, field) : undefined;
}

function textOf(message: unknown, field: string): string | undefined {
  const text = fieldOf(message, field);
  return typeof text === 'string' && text !== '' ? text : undefined;
}
