import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.CompletionException;
import java.util.stream.Collectors;
import software.amazon.awssdk.awscore.exception.AwsServiceException;
import software.amazon.awssdk.protocols.jsoncore.JsonNode;

/**
 * Runs a program by the tasks on its standard input, one JSON object a line, and writes a line for each: {"done": …} or
 * {"refused": …}.
 */
final class Lines {
    interface Program {
        /** What was done, as JSON. */
        String done(JsonNode task) throws IOException;
    }

    static void run(Program program) throws IOException {
        PrintStream results = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            try {
                results.println("{\"done\":" + program.done(JsonNode.parser().parse(line)) + "}");
            } catch (IOException | RuntimeException error) {
                Throwable cause = error instanceof CompletionException ? error.getCause() : error;
                String code = cause instanceof AwsServiceException service && service.awsErrorDetails() != null
                        ? service.awsErrorDetails().errorCode() + ": " : "";
                results.println("{\"refused\":" + quoted(code + cause) + "}");
            }
        }
        System.exit(0);
    }

    static String text(JsonNode task, String name) {
        return task.field(name).map(JsonNode::text).orElse(null);
    }

    static String quoted(String text) {
        StringBuilder json = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\' || c < ' ') {
                json.append(String.format("\\u%04x", (int) c));
            } else {
                json.append(c);
            }
        }
        return json.append('"').toString();
    }

    static String list(List<String> json) {
        return json.stream().collect(Collectors.joining(",", "[", "]"));
    }

    private Lines() {}
}
