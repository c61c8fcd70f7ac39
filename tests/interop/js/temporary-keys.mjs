// Tencent's COS SDK for Node with temporary keys. Told on standard input, in JSON, where its keys come from:
//   given    a key as the COS STS SDKs give it
//   sts      getCredential of qcloud-cos-sts
//   cosgate  the callback getAuthorization, which asks cosgate for a key of one prefix
// Prints its walk (see temporary_keys.py).
import { createHash } from "node:crypto";
import { text } from "node:stream/consumers";

import COS from "cos-nodejs-sdk-v5";
import STS from "qcloud-cos-sts";

const task = JSON.parse(await text(process.stdin));
const { Bucket, Region, inside, outside } = task;

// The local key signs in COS's own way, which covers a body by its Content-MD5.
async function vended() {
  const { host } = new URL(task.cosgate);
  const body = JSON.stringify({ bucket: Bucket, allowPrefixes: [`${inside}*`] });
  const md5 = createHash("md5").update(body).digest("base64");
  const Authorization = COS.getAuthorization({
    SecretId: task.id,
    SecretKey: task.secret,
    Method: "POST",
    Pathname: "/.cosgate/credentials",
    Headers: { host, "content-md5": md5 },
  });
  const response = await fetch(`${task.cosgate}/.cosgate/credentials`, {
    method: "POST",
    headers: { Authorization, "Content-MD5": md5 },
    body,
  });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  return response.json();
}

const ways = {
  given: ({ key }) => key,
  sts: ({ host, secretId, secretKey, policy }) =>
    STS.getCredential({ host, secretId, secretKey, policy, region: Region, durationSeconds: 1800 }),
};

function keys() {
  if (task.from === "cosgate") {
    return {
      getAuthorization: (_, callback) =>
        vended().then(({ credentials, startTime, expiredTime }) =>
          callback({
            TmpSecretId: credentials.tmpSecretId,
            TmpSecretKey: credentials.tmpSecretKey,
            SecurityToken: credentials.sessionToken,
            StartTime: startTime,
            ExpiredTime: expiredTime,
          }),
        ),
    };
  }
  return Promise.resolve(ways[task.from](task)).then(({ credentials }) => ({
    SecretId: credentials.tmpSecretId,
    SecretKey: credentials.tmpSecretKey,
    SecurityToken: credentials.sessionToken,
  }));
}

// cosgate's COS is its HTTP proxy: no name is looked up.
const cos = new COS({ ...(await keys()), Protocol: "http:", Proxy: task.cos });

async function seen(call) {
  try {
    await call();
    return "ok";
  } catch (error) {
    if (!error.statusCode) throw error;
    return `${error.statusCode} ${error.code}`;
  }
}

const walk = {};
for (const [where, prefix] of Object.entries({ inside, outside })) {
  const object = { Bucket, Region, Key: `${prefix}a b+中` };
  walk[`put ${where}`] = await seen(() => cos.putObject({ ...object, Body: "content" }));
  walk[`get ${where}`] = await seen(async () => {
    const { Body } = await cos.getObject(object);
    if (String(Body) !== "content") throw new Error("not what was put");
  });
  walk[`list ${where}`] = await seen(() => cos.getBucket({ Bucket, Region, Prefix: prefix }));
  walk[`delete ${where}`] = await seen(() => cos.deleteObject(object));
}
console.log(JSON.stringify(walk));
