import { join } from 'node:path';
import { Client, type MethodDefinition, type ServiceDefinition, credentials } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const services = loadSync(join(import.meta.dirname, 'cri.proto'), {
  keepCase: false,
  longs: Number,
  enums: String,
});

/** What a filesystem that the kubelet watches is said to hold. */
interface FilesystemUsage {
  readonly fsId: { readonly mountpoint: string };
  readonly usedBytes: { readonly value: number };
  readonly inodesUsed: { readonly value: number };
}

/** The answers that the tests look at. */
interface Answers {
  ListImages: { images: { repoTags: string[] }[] };
  ImageFsInfo: { imageFilesystems: FilesystemUsage[] };
  RemoveImage: object;
  RunPodSandbox: { podSandboxId: string };
  StopPodSandbox: object;
  RemovePodSandbox: object;
  CreateContainer: { containerId: string };
  StartContainer: object;
  ContainerStatus: { status: { state: string; exitCode: number } };
  ContainerStats: { stats: { writableLayer: FilesystemUsage } };
}

/** Speaks to containerd as the kubelet does. */
export class CriClient {
  readonly #client: Client;

  constructor(socket: string) {
    this.#client = new Client(`unix:${socket}`, credentials.createInsecure());
  }

  call<Method extends keyof Answers>(method: Method, request: object): Promise<Answers[Method]> {
    const service = method.includes('Image') ? 'ImageService' : 'RuntimeService';
    const { [method]: definition } = services[`runtime.v1.${service}`] as ServiceDefinition;
    const { path, requestSerialize, responseDeserialize } = definition as MethodDefinition<
      object,
      Answers[Method]
    >;
    return new Promise((done, fail) => {
      this.#client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        { deadline: Date.now() + 300_000 },
        (error, answer) => {
          if (answer === undefined) fail(error ?? new Error(`no answer to ${method}`));
          else done(answer);
        },
      );
    });
  }

  close(): void {
    this.#client.close();
  }
}
