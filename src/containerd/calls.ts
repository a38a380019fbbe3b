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
  /** The message that the client got; empty if the call succeeded. */
  readonly message: string;
  /** How long it took, in milliseconds. */
  readonly duration: number;
}

/** A call that is running. */
interface Running {
  readonly service: string;
  readonly call: ServerInterceptingCallInterface;
}

/** Follows the calls of a server, of any service. */
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
    let identifiers: Identifiers = { key: undefined, name: undefined };
    let complete = false;
    const end = ({ code, details }: CallStatus): void => {
      if (!this.#running.delete(running)) return;
      const message = code === status.OK ? '' : details;
      const duration = performance.now() - started;
      this.#onEnd({ service, method, ...identifiers, code: status[code], message, duration });
    };
    const observed = new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMessage: (message: unknown, go) => {
            identifiers = identifiersOf(message);
            go(message);
          },
          onReceiveHalfClose: (go) => {
            complete = true;
            go();
          },
          // Called at the end of every call; for calls that the library has ended itself, it is the only sign.
          onCancel: () => end(abandoned(deadline, complete)),
        }),
      sendStatus: (sent, next) => {
        end({ code: sent.code ?? status.UNKNOWN, details: sent.details ?? '' });
        next(sent);
      },
    });
    const running: Running = { service, call: observed };
    this.#running.add(running);
    return observed;
  };

  /** Ends the calls of all other services: their clients could keep them open for any time. */
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

type Identifiers = Pick<CallRecord, 'key' | 'name'>;

/** The key and name in a request. */
function identifiersOf(message: unknown): Identifiers {
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
