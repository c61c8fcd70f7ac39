// AWS SDK for JavaScript v3 with default settings. Reads tasks from standard input, one JSON object a line, and
// writes a line for each: {"done": …} or {"refused": …}.
import { createReadStream } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { PassThrough } from "node:stream";

import {
  CopyObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadObjectCommand,
  PutObjectCommand,
  S3Client,
  paginateListObjectsV2,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { createPresignedPost } from "@aws-sdk/s3-presigned-post";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

const common = { endpoint: process.env.ENDPOINT, forcePathStyle: true };
const clients = {
  default: new S3Client(common),
  required: new S3Client({
    ...common,
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
  }),
};

const bodies = {
  buffer: readFile,
  bytes: async (file) => new Uint8Array(await readFile(file)),
  stream: (file) => createReadStream(file),
  // Nothing tells the SDK how long this one is.
  pipe: (file) => createReadStream(file).pipe(new PassThrough()),
};

const signed = { get: GetObjectCommand, put: PutObjectCommand };

const ways = {
  put: async (s3, { file, body, ...where }) => s3.send(new PutObjectCommand({ ...where, Body: await bodies[body](file) })),
  upload: async (s3, { file, body, partSize, ...where }) =>
    new Upload({ client: s3, partSize, params: { ...where, Body: await bodies[body](file) } }).done(),
  get: async (s3, { file, ...where }) => {
    const { Body, ...result } = await s3.send(new GetObjectCommand(where));
    await writeFile(file, Body);
    return result;
  },
  head: (s3, where) => s3.send(new HeadObjectCommand(where)),
  copy: (s3, where) => s3.send(new CopyObjectCommand(where)),
  list: async (s3, { pageSize, ...where }) => {
    const pages = [];
    for await (const page of paginateListObjectsV2({ client: s3, pageSize }, where)) {
      pages.push((page.Contents ?? []).map((item) => item.Key));
    }
    return pages;
  },
  remove: (s3, where) => s3.send(new DeleteObjectsCommand(where)),
  sign: (s3, { call, ...where }) => getSignedUrl(s3, new signed[call](where), { expiresIn: 60 }),
  post: (s3, form) => createPresignedPost(s3, form),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { way, client = "default", ...rest } = JSON.parse(line);
  let result;
  try {
    result = { done: (await ways[way](clients[client], rest)) ?? null };
  } catch (error) {
    result = { refused: String(error.stack) };
  }
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
