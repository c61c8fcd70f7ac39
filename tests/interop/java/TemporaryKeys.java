import com.qcloud.cos.COSClient;
import com.qcloud.cos.ClientConfig;
import com.qcloud.cos.auth.BasicCOSCredentials;
import com.qcloud.cos.auth.BasicSessionCredentials;
import com.qcloud.cos.auth.COSCredentials;
import com.qcloud.cos.exception.CosServiceException;
import com.qcloud.cos.http.HttpProtocol;
import com.qcloud.cos.model.COSObject;
import com.qcloud.cos.region.Region;
import com.tencent.cloud.CosStsClient;
import com.tencent.cloud.Credentials;
import com.tencent.cloud.Response;
import java.net.URI;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TreeMap;

/**
 * Tencent's SDKs for Java as their page uses them: CosStsClient asks for a key, COSClient uses it. Prints three walks (see
 * temporary_keys.py) as lines of JSON: with that key, with the one in TMP_SECRET_ID, TMP_SECRET_KEY and SESSION_TOKEN, and with
 * the local one in LOCAL_ID and LOCAL_SECRET through cosgate.
 */
public class TemporaryKeys {
    static final String BUCKET = System.getenv("BUCKET");
    static final String REGION = System.getenv("REGION");
    static final String INSIDE = System.getenv("INSIDE");

    interface Call {
        void run() throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        TreeMap<String, Object> config = new TreeMap<>();
        config.put("secretId", System.getenv("SECRET_ID"));
        config.put("secretKey", System.getenv("SECRET_KEY"));
        config.put("host", System.getenv("STS_HOST"));
        config.put("durationSeconds", 1800);
        config.put("bucket", BUCKET);
        config.put("region", REGION);
        config.put("allowPrefixes", new String[] {INSIDE + "*"});
        config.put("allowActions", System.getenv("ACTIONS").split(" "));
        Response response = CosStsClient.getCredential(config);
        if (response.expiredTime - response.startTime != 1800) throw new Exception("not for 1800 s");
        Credentials got = response.credentials;
        walk(new BasicSessionCredentials(got.tmpSecretId, got.tmpSecretKey, got.sessionToken), config("COS"));
        String token = System.getenv("SESSION_TOKEN");
        walk(new BasicSessionCredentials(System.getenv("TMP_SECRET_ID"), System.getenv("TMP_SECRET_KEY"), token), config("COS"));
        ClientConfig proxy = config("COSGATE");
        proxy.setEndPointSuffix(System.getenv("DOMAIN"));
        walk(new BasicCOSCredentials(System.getenv("LOCAL_ID"), System.getenv("LOCAL_SECRET")), proxy);
    }

    /** The server in a variable is the HTTP proxy, so that no name is looked up. */
    static ClientConfig config(String variable) {
        ClientConfig config = new ClientConfig(new Region(REGION));
        config.setHttpProtocol(HttpProtocol.http);
        URI server = URI.create(System.getenv(variable));
        config.setHttpProxyIp(server.getHost());
        config.setHttpProxyPort(server.getPort());
        return config;
    }

    static void walk(COSCredentials credentials, ClientConfig config) {
        COSClient client = new COSClient(credentials, config);
        Map<String, String> walk = new LinkedHashMap<>();
        walk(client, "inside", INSIDE, walk);
        walk(client, "outside", System.getenv("OUTSIDE"), walk);
        client.shutdown();
        StringBuilder json = new StringBuilder();
        walk.forEach((step, seen) -> json.append(json.length() == 0 ? "{" : ", ").append('"' + step + "\": \"" + seen + '"'));
        System.out.println(json.append("}"));
    }

    static void walk(COSClient client, String where, String prefix, Map<String, String> walk) {
        String name = prefix + "a b+中";
        walk.put("put " + where, seen(() -> client.putObject(BUCKET, name, "content")));
        walk.put("get " + where, seen(() -> {
            try (COSObject object = client.getObject(BUCKET, name)) {
                String content = new String(object.getObjectContent().readAllBytes());
                if (!content.equals("content")) throw new Exception("not what was put");
            }
        }));
        walk.put("list " + where, seen(() -> client.listObjects(BUCKET, prefix)));
        walk.put("delete " + where, seen(() -> client.deleteObject(BUCKET, name)));
    }

    static String seen(Call call) {
        try {
            call.run();
            return "ok";
        } catch (CosServiceException refusal) {
            return refusal.getStatusCode() + " " + refusal.getErrorCode();
        } catch (Exception other) {
            return other.toString().replace('"', '\'');
        }
    }
}
