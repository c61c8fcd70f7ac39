// AWS SDK for Java v2 with default settings; uploads by parts and downloads go through the S3TransferManager. Told what to do line
// by line, see Lines.java.

import java.io.IOException;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import software.amazon.awssdk.core.checksums.RequestChecksumCalculation;
import software.amazon.awssdk.core.checksums.ResponseChecksumValidation;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.core.sync.ResponseTransformer;
import software.amazon.awssdk.protocols.jsoncore.JsonNode;
import software.amazon.awssdk.services.s3.S3AsyncClient;
import software.amazon.awssdk.services.s3.S3Client;
import software.amazon.awssdk.services.s3.S3ClientBuilder;
import software.amazon.awssdk.services.s3.S3Configuration;
import software.amazon.awssdk.services.s3.model.ListObjectsV2Request;
import software.amazon.awssdk.services.s3.model.ListObjectsV2Response;
import software.amazon.awssdk.services.s3.model.ObjectIdentifier;
import software.amazon.awssdk.services.s3.model.PutObjectResponse;
import software.amazon.awssdk.services.s3.model.S3Object;
import software.amazon.awssdk.services.s3.presigner.S3Presigner;
import software.amazon.awssdk.transfer.s3.S3TransferManager;

public class AwsSdk {
    private static final URI ENDPOINT = URI.create(System.getenv("ENDPOINT"));
    private static final long PART = 5 << 20;

    private final Map<String, S3Client> clients = Map.of("default", client(false), "required", client(true));
    private final S3TransferManager transfers = S3TransferManager.builder().s3Client(asynchronous()).build();

    private static S3Client client(boolean whenRequired) {
        S3ClientBuilder builder = S3Client.builder().endpointOverride(ENDPOINT).forcePathStyle(true);
        if (whenRequired) {
            builder.requestChecksumCalculation(RequestChecksumCalculation.WHEN_REQUIRED)
                    .responseChecksumValidation(ResponseChecksumValidation.WHEN_REQUIRED);
        }
        return builder.build();
    }

    private static S3AsyncClient asynchronous() {
        if ("crt".equals(System.getProperty("transfer"))) {
            return S3AsyncClient.crtBuilder().endpointOverride(ENDPOINT).forcePathStyle(true).minimumPartSizeInBytes(PART).build();
        }
        return S3AsyncClient.builder().endpointOverride(ENDPOINT).forcePathStyle(true).multipartEnabled(true)
                .multipartConfiguration(parts -> parts.minimumPartSizeInBytes(PART).thresholdInBytes(PART)).build();
    }

    private String put(S3Client s3, JsonNode task, String bucket, String key) throws IOException {
        Path file = Path.of(Lines.text(task, "file"));
        RequestBody body = "stream".equals(Lines.text(task, "body"))
                ? RequestBody.fromInputStream(Files.newInputStream(file), Files.size(file))
                : RequestBody.fromBytes(Files.readAllBytes(file));
        String algorithm = Lines.text(task, "ChecksumAlgorithm");
        PutObjectResponse done = s3.putObject(put -> put.bucket(bucket).key(key).checksumAlgorithm(algorithm), body);
        List<String> sums = new ArrayList<>();
        sum(sums, "CRC32", done.checksumCRC32());
        sum(sums, "CRC32C", done.checksumCRC32C());
        sum(sums, "CRC64NVME", done.checksumCRC64NVME());
        sum(sums, "SHA1", done.checksumSHA1());
        sum(sums, "SHA256", done.checksumSHA256());
        return "{" + String.join(",", sums) + "}";
    }

    private static void sum(List<String> sums, String name, String value) {
        if (value != null) {
            sums.add("\"Checksum" + name + "\":" + Lines.quoted(value));
        }
    }

    private String upload(JsonNode task, String bucket, String key) {
        String algorithm = Lines.text(task, "ChecksumAlgorithm");
        transfers.uploadFile(upload -> upload.source(Path.of(Lines.text(task, "file")))
                .putObjectRequest(put -> put.bucket(bucket).key(key).checksumAlgorithm(algorithm))).completionFuture().join();
        return "null";
    }

    private String get(S3Client s3, JsonNode task, String bucket, String key) throws IOException {
        Path file = Path.of(Lines.text(task, "file"));
        String range = Lines.text(task, "Range");
        Files.deleteIfExists(file);
        if (range != null) {
            s3.getObject(get -> get.bucket(bucket).key(key).range(range), ResponseTransformer.toFile(file));
        } else {
            transfers.downloadFile(down -> down.destination(file).getObjectRequest(get -> get.bucket(bucket).key(key)))
                    .completionFuture().join();
        }
        return "null";
    }

    private String listed(S3Client s3, JsonNode task, String bucket) {
        Integer size = task.field("pageSize").map(number -> Integer.valueOf(number.asNumber())).orElse(null);
        ListObjectsV2Request request = ListObjectsV2Request.builder().bucket(bucket).prefix(Lines.text(task, "Prefix")).maxKeys(size).build();
        List<String> pages = new ArrayList<>();
        for (ListObjectsV2Response page : s3.listObjectsV2Paginator(request)) {
            pages.add(Lines.list(page.contents().stream().map(S3Object::key).map(Lines::quoted).collect(Collectors.toList())));
        }
        return Lines.list(pages);
    }

    private String remove(S3Client s3, JsonNode task, String bucket) {
        List<ObjectIdentifier> doomed = task.field("Delete").orElseThrow().field("Objects").orElseThrow().asArray().stream()
                .map(object -> ObjectIdentifier.builder().key(Lines.text(object, "Key")).build()).collect(Collectors.toList());
        List<String> deleted = s3.deleteObjects(delete -> delete.bucket(bucket).delete(keys -> keys.objects(doomed))).deleted()
                .stream().map(object -> Lines.quoted(object.key())).collect(Collectors.toList());
        return "{\"Deleted\":" + Lines.list(deleted) + "}";
    }

    private static String sign(JsonNode task, String bucket, String key) {
        S3Configuration pathStyle = S3Configuration.builder().pathStyleAccessEnabled(true).build();
        Duration minute = Duration.ofMinutes(1);
        try (S3Presigner signer = S3Presigner.builder().endpointOverride(ENDPOINT).serviceConfiguration(pathStyle).build()) {
            return Lines.quoted(("put".equals(Lines.text(task, "call"))
                    ? signer.presignPutObject(put -> put.signatureDuration(minute).putObjectRequest(o -> o.bucket(bucket).key(key))).url()
                    : signer.presignGetObject(get -> get.signatureDuration(minute).getObjectRequest(o -> o.bucket(bucket).key(key))).url())
                    .toString());
        }
    }

    private String done(JsonNode task) throws IOException {
        S3Client s3 = clients.get(task.field("client").map(JsonNode::text).orElse("default"));
        String bucket = Lines.text(task, "Bucket");
        String key = Lines.text(task, "Key");
        switch (Lines.text(task, "way")) {
            case "put": return put(s3, task, bucket, key);
            case "upload": return upload(task, bucket, key);
            case "get": return get(s3, task, bucket, key);
            case "list": return listed(s3, task, bucket);
            case "remove": return remove(s3, task, bucket);
            case "sign": return sign(task, bucket, key);
            default: throw new IOException("no such way: " + task);
        }
    }

    public static void main(String[] arguments) throws IOException {
        Lines.run(new AwsSdk()::done);
    }
}
