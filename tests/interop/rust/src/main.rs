//! AWS SDK for Rust with default settings. Reads tasks from standard input, one JSON object a line,
//! and writes a line for each: {"done": …} or {"refused": …}.

use std::error::Error;
use std::io::{self, BufRead as _, Write as _};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart, Delete,
    ObjectIdentifier,
};
use serde_json::{Value, json};

type Done = Result<Value, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (default, required) = (client(false)?, client(true)?);
    for line in io::stdin().lock().lines() {
        let task = Task(serde_json::from_str(&line?)?);
        let s3 = match task.text("client") {
            Some("required") => &required,
            _ => &default,
        };
        let result = match perform(s3, &task).await {
            Ok(done) => json!({ "done": done }),
            Err(error) => json!({ "refused": described(&*error) }),
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{result}")?;
        out.flush()?;
    }
    Ok(())
}

/// With all defaults, but for checksums `when_required`.
fn client(required: bool) -> Result<Client, std::env::VarError> {
    let var = std::env::var;
    let key = Credentials::new(
        var("AWS_ACCESS_KEY_ID")?,
        var("AWS_SECRET_ACCESS_KEY")?,
        None,
        None,
        "environment",
    );
    let mut config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(key)
        .endpoint_url(var("ENDPOINT")?)
        .region(Region::new(var("AWS_REGION")?))
        .force_path_style(true);
    if required {
        config = config
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    }
    Ok(Client::from_conf(config.build()))
}

async fn perform(s3: &Client, task: &Task) -> Done {
    match task.text("way") {
        Some("get") => get(s3, task).await,
        Some("list") => list(s3, task).await,
        Some("put") => put(s3, task).await,
        Some("remove") => remove(s3, task).await,
        Some("sign") => sign(s3, task).await,
        Some("upload") => upload(s3, task).await,
        way => Err(format!("no such way: {way:?}").into()),
    }
}

async fn put(s3: &Client, task: &Task) -> Done {
    let put = s3
        .put_object()
        .bucket(task.need("Bucket")?)
        .key(task.need("Key")?);
    let put = put
        .set_checksum_algorithm(task.algorithm())
        .body(task.body().await?);
    let done = put.send().await?;
    Ok(json!({
        "ChecksumCRC32": done.checksum_crc32(),
        "ChecksumCRC32C": done.checksum_crc32_c(),
        "ChecksumCRC64NVME": done.checksum_crc64_nvme(),
        "ChecksumSHA1": done.checksum_sha1(),
        "ChecksumSHA256": done.checksum_sha256(),
    }))
}

async fn get(s3: &Client, task: &Task) -> Done {
    let get = s3
        .get_object()
        .bucket(task.need("Bucket")?)
        .key(task.need("Key")?);
    let got = get
        .set_range(task.text("Range").map(str::to_owned))
        .set_checksum_mode(task.text("ChecksumMode").map(ChecksumMode::from))
        .send()
        .await?;
    std::fs::write(task.need("file")?, got.body.collect().await?.into_bytes())?;
    Ok(Value::Null)
}

async fn upload(s3: &Client, task: &Task) -> Done {
    let (bucket, key) = (task.need("Bucket")?, task.need("Key")?);
    let started = s3
        .create_multipart_upload()
        .bucket(bucket)
        .key(key)
        .set_checksum_algorithm(task.algorithm())
        .send()
        .await?;
    let id = started.upload_id().ok_or("no upload id")?;
    let data = std::fs::read(task.need("file")?)?;
    let size = task.0["partSize"]
        .as_u64()
        .ok_or("no partSize")?
        .try_into()?;
    let mut parts = Vec::new();
    for (number, piece) in (1..).zip(data.chunks(size)) {
        let part = s3
            .upload_part()
            .bucket(bucket)
            .key(key)
            .upload_id(id)
            .part_number(number)
            .set_checksum_algorithm(task.algorithm())
            .body(ByteStream::from(piece.to_vec()))
            .send()
            .await?;
        parts.push(
            CompletedPart::builder()
                .part_number(number)
                .set_e_tag(part.e_tag)
                .set_checksum_crc32(part.checksum_crc32)
                .set_checksum_crc32_c(part.checksum_crc32_c)
                .set_checksum_crc64_nvme(part.checksum_crc64_nvme)
                .set_checksum_sha1(part.checksum_sha1)
                .set_checksum_sha256(part.checksum_sha256)
                .build(),
        );
    }
    let parts = CompletedMultipartUpload::builder()
        .set_parts(Some(parts))
        .build();
    let complete = s3.complete_multipart_upload().bucket(bucket).key(key);
    complete
        .upload_id(id)
        .multipart_upload(parts)
        .send()
        .await?;
    Ok(Value::Null)
}

/// All pages, each a list of keys.
async fn list(s3: &Client, task: &Task) -> Done {
    let list = s3
        .list_objects_v2()
        .bucket(task.need("Bucket")?)
        .prefix(task.need("Prefix")?);
    let page_size = task.0["pageSize"].as_i64().unwrap_or(1000).try_into()?;
    let mut pages = list.into_paginator().page_size(page_size).send();
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await {
        keys.push(
            page?
                .contents()
                .iter()
                .filter_map(|item| item.key())
                .collect(),
        );
    }
    Ok(Value::Array(keys))
}

async fn remove(s3: &Client, task: &Task) -> Done {
    let keys = task.0["Delete"]["Objects"].as_array().ok_or("no Objects")?;
    let keys = keys.iter().filter_map(|object| object["Key"].as_str());
    let keys = keys.map(|key| ObjectIdentifier::builder().key(key).build());
    let doomed = Delete::builder()
        .set_objects(Some(keys.collect::<Result<_, _>>()?))
        .build()?;
    let done = s3
        .delete_objects()
        .bucket(task.need("Bucket")?)
        .delete(doomed)
        .send()
        .await?;
    Ok(json!({ "Deleted": done.deleted().iter().map(|object| object.key()).collect::<Vec<_>>() }))
}

async fn sign(s3: &Client, task: &Task) -> Done {
    let (bucket, key) = (task.need("Bucket")?, task.need("Key")?);
    let minute = PresigningConfig::expires_in(std::time::Duration::from_secs(60))?;
    let request = match task.need("call")? {
        "put" => {
            s3.put_object()
                .bucket(bucket)
                .key(key)
                .presigned(minute)
                .await?
        }
        _ => {
            s3.get_object()
                .bucket(bucket)
                .key(key)
                .presigned(minute)
                .await?
        }
    };
    Ok(request.uri().into())
}

/// One line of input.
struct Task(Value);

impl Task {
    fn text(&self, name: &str) -> Option<&str> {
        self.0[name].as_str()
    }

    fn need(&self, name: &str) -> Result<&str, String> {
        self.text(name).ok_or_else(|| format!("no {name}"))
    }

    fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        self.text("ChecksumAlgorithm").map(ChecksumAlgorithm::from)
    }

    /// A buffer is sent in one piece, a file as a stream.
    async fn body(&self) -> Result<ByteStream, Box<dyn Error>> {
        let file = self.need("file")?;
        Ok(match self.need("body")? {
            "stream" => ByteStream::from_path(file).await?,
            _ => ByteStream::from(std::fs::read(file)?),
        })
    }
}

/// The error and all that led to it; S3's code is among that.
fn described(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text += &format!(": {error:?}");
        next = error.source();
    }
    text
}
