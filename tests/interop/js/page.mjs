// A page of another origin. with_cors.py bundles it, opens it in a browser, and names in `window.task` which step to
// take, with which values; what came of it goes back to the page's own site.
import { GetObjectCommand, HeadObjectCommand, ListObjectsV2Command, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  ListPartsCommand,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";
import AwsS3 from "@uppy/aws-s3";
import Uppy from "@uppy/core";
import COS from "cos-js-sdk-v5";

const MIB = 1024 * 1024;

// Bytes that do not repeat soon; with_cors.py makes the same.
function sample(size) {
  const bytes = new Uint8Array(size);
  for (let i = 0; i < size; i++) bytes[i] = (i * 31 + (i >> 8) * 7 + (i >> 16)) & 255;
  return bytes;
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function s3({ endpoint, id, secret, region }) {
  return new S3Client({
    endpoint,
    region,
    forcePathStyle: true,
    credentials: { accessKeyId: id, secretAccessKey: secret },
  });
}

async function read(response) {
  const headers = Object.fromEntries(response.headers);
  return { status: response.status, headers, text: await response.text() };
}

function cos({ id, secret, authority, scheme }) {
  return new COS({
    SecretId: id,
    SecretKey: secret,
    Domain: `{Bucket}.s3.localhost:${authority.split(":")[1]}`,
    Protocol: `${scheme}:`,
  });
}

const steps = {
  async sdk(task) {
    const client = s3(task);
    const object = { Bucket: task.bucket, Key: `${task.prefix}sdk a+b 中.txt` };
    const put = await client.send(new PutObjectCommand({ ...object, Body: "from a page", Metadata: { colour: "blue" } }));
    const head = await client.send(new HeadObjectCommand(object));
    const got = await client.send(new GetObjectCommand({ ...object, Range: "bytes=5-" }));
    const listed = await client.send(new ListObjectsV2Command({ Bucket: task.bucket, Prefix: task.prefix }));
    const none = await client.send(new GetObjectCommand({ ...object, Key: `${task.prefix}none` })).catch((error) => error);
    const denied = await client.send(new PutObjectCommand({ ...object, Key: "bob/x", Body: "x" })).catch((error) => error);
    return {
      etag: put.ETag === head.ETag && put.ETag,
      colour: head.Metadata.colour,
      range: got.ContentRange,
      text: await got.Body.transformToString(),
      keys: listed.Contents.map(({ Key }) => Key),
      errors: [none.name, denied.name],
      id: none.$metadata.requestId,
    };
  },

  async sdk_multipart(task) {
    const client = s3(task);
    const bytes = sample(task.size);
    const params = { Bucket: task.bucket, Key: `${task.prefix}sdk-multipart`, Body: new Blob([bytes]) };
    await new Upload({ client, params, partSize: 5 * MIB }).done();
    const got = await client.send(new GetObjectCommand({ Bucket: params.Bucket, Key: params.Key }));
    return { sha256: await sha256(await got.Body.transformToByteArray()) };
  },

  async cos(task) {
    const client = cos(task);
    const object = { Bucket: task.bucket, Region: task.region, Key: `${task.prefix}cos a+b 中.txt` };
    const put = await client.putObject({ ...object, Body: new Blob(["from a page"]), Headers: { "x-cos-meta-colour": "blue" } });
    const head = await client.headObject(object);
    const got = await client.getObject(object);
    const listed = await client.getBucket({ Bucket: task.bucket, Region: task.region, Prefix: task.prefix });
    const none = await client.headObject({ ...object, Key: `${task.prefix}none` }).catch((error) => error);
    const file = new Blob([sample(task.size)]);
    const big = { ...object, Key: `${task.prefix}cos-multipart` };
    await client.uploadFile({ ...big, Body: file, SliceSize: MIB, ChunkSize: 5 * MIB });
    const whole = await client.getObject({ ...big, DataType: "blob" });
    await client.deleteObject(object);
    return {
      etag: put.ETag === head.ETag && put.ETag,
      colour: head.headers["x-cos-meta-colour"],
      text: got.Body,
      keys: listed.Contents.map(({ Key }) => Key),
      none: none.statusCode,
      sha256: await sha256(await whole.Body.arrayBuffer()),
    };
  },

  // Uppy asks for a presigned URL for each of its requests, puts the parts, and must read their ETags.
  async uppy(task) {
    const client = s3(task);
    const command = ({ method, key, uploadId, partNumber, contentType }) => {
      const of = { Bucket: task.bucket, Key: key, UploadId: uploadId };
      if (method === "GET") return new ListPartsCommand(of);
      if (method === "DELETE") return new AbortMultipartUploadCommand(of);
      if (method === "POST") return uploadId ? new CompleteMultipartUploadCommand(of) : new CreateMultipartUploadCommand(of);
      return partNumber
        ? new UploadPartCommand({ ...of, PartNumber: partNumber })
        : new PutObjectCommand({ ...of, ContentType: contentType });
    };
    const uppy = new Uppy().use(AwsS3, {
      shouldUseMultipart: true,
      getChunkSize: () => 5 * MIB,
      generateObjectKey: (file) => `${task.prefix}uppy/${file.name}`,
      signRequest: async (request) => ({ url: await getSignedUrl(client, command(request), { expiresIn: 600 }) }),
    });
    uppy.addFile({ name: "photo-0001.jpg", type: "image/jpeg", data: new Blob([sample(task.size)]) });
    const { successful, failed } = await uppy.upload();
    return { successful: successful.length, failed: failed.map(({ error }) => String(error)) };
  },

  // With `fetch` alone: presigned URLs, forms, public objects.
  async fetches({ requests }) {
    const results = [];
    for (const { url, form, file, ...options } of requests) {
      if (form) {
        options.body = new FormData();
        for (const [name, value] of Object.entries(form)) options.body.append(name, value);
        options.body.append("file", new Blob([file]), "a file.txt");
      }
      results.push(await fetch(url, options).then(read, (error) => ({ failed: error.name })));
    }
    return results;
  },

  async images({ urls }) {
    const load = (url) =>
      new Promise((done) => {
        const image = new Image();
        image.onload = () => done(image.naturalWidth);
        image.onerror = () => done(0);
        image.src = url;
      });
    return Promise.all(urls.map(load));
  },
};

const { step, ...task } = window.task;
const result = await steps[step](task).then(
  (result) => ({ result }),
  (error) => ({ error: `${error?.stack ?? error?.message ?? JSON.stringify(error)}` }),
);
await fetch("/result", { method: "POST", body: JSON.stringify(result) });
