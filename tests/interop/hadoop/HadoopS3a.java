import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.URI;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.LocatedFileStatus;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RemoteIterator;
import software.amazon.awssdk.protocols.jsoncore.JsonNode;

/** Hadoop's file system on S3, with what its page on other stores says must be set. Reads its tasks line by line, see Lines.java. */
public class HadoopS3a {
    private static final int COPY = 64 << 10;

    private final FileSystem files;

    private HadoopS3a() throws IOException {
        Configuration settings = new Configuration();
        settings.set("fs.s3a.endpoint", System.getenv("ENDPOINT"));
        settings.set("fs.s3a.endpoint.region", System.getenv("AWS_REGION"));
        settings.set("fs.s3a.path.style.access", "true");
        // The smallest that there are, so that a few MiB are several parts.
        settings.set("fs.s3a.multipart.size", "5M");
        settings.set("fs.s3a.multipart.threshold", "5M");
        settings.set("fs.s3a.buffer.dir", System.getProperty("java.io.tmpdir"));
        files = FileSystem.get(URI.create("s3a://demo/"), settings);
    }

    private String put(Path path, JsonNode task) throws IOException {
        boolean overwrite = !"no".equals(Lines.text(task, "overwrite"));
        try (InputStream source = Files.newInputStream(java.nio.file.Path.of(Lines.text(task, "file")));
                OutputStream target = files.create(path, overwrite)) {
            source.transferTo(target);
        }
        return "null";
    }

    private String get(Path path, JsonNode task) throws IOException {
        try (InputStream source = files.open(path, COPY);
                OutputStream target = Files.newOutputStream(java.nio.file.Path.of(Lines.text(task, "file")))) {
            source.transferTo(target);
        }
        return "null";
    }

    private String list(Path folder) throws IOException {
        List<String> found = new ArrayList<>();
        try {
            for (RemoteIterator<LocatedFileStatus> all = files.listFiles(folder, true); all.hasNext(); ) {
                found.add(named(all.next()));
            }
        } catch (FileNotFoundException nothing) {
            // An object store has no empty folders.
        }
        return Lines.list(found);
    }

    private String walk(Path folder) throws IOException {
        List<String> found = new ArrayList<>();
        for (FileStatus one : files.listStatus(folder)) {
            found.add(named(one));
        }
        found.sort(null);
        return Lines.list(found);
    }

    private static String named(FileStatus file) {
        URI at = file.getPath().toUri();
        return Lines.quoted(at.getHost() + at.getPath());
    }

    private static String must(boolean done) throws IOException {
        if (!done) {
            throw new IOException("S3A says that it did not");
        }
        return "null";
    }

    private static Path path(JsonNode task, String name) {
        String key = Lines.text(task, name);
        return new Path("s3a://" + Lines.text(task, "Bucket") + "/" + (key == null ? "" : key));
    }

    private String done(JsonNode task) throws IOException {
        switch (Lines.text(task, "way")) {
            case "put": case "upload": return put(path(task, "Key"), task);
            case "get": return get(path(task, "Key"), task);
            case "list": return list(path(task, "Prefix"));
            case "walk": return walk(path(task, "Prefix"));
            case "move": return must(files.rename(path(task, "Key"), path(task, "to")));
            case "make": return must(files.mkdirs(path(task, "Key")));
            case "exists": return String.valueOf(files.exists(path(task, "Key")));
            case "remove": return must(files.delete(path(task, "Prefix"), true));
            default: throw new IOException("no such way: " + task);
        }
    }

    public static void main(String[] arguments) throws IOException {
        Lines.run(new HadoopS3a()::done);
    }
}
