import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.standardwebhooks.Webhook;
import com.standardwebhooks.exceptions.WebhookVerificationException;
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.http.HttpHeaders;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;

/** Receives the signed webhook of a trigger, and prints each rollout once. LISTEN and SHOP_WEBHOOK_SECRET are its settings. */
public class Receiver {
    public static void main(String[] arguments) throws Exception {
        // The library refuses a secret with a newline at its end.
        Webhook webhook = new Webhook(System.getenv("SHOP_WEBHOOK_SECRET").strip());
        Map<String, String> epochs = new HashMap<>(); // trigger -> epoch; a real receiver keeps both on disk
        Map<String, Long> last = new HashMap<>(); // trigger -> number
        String[] listen = System.getenv().getOrDefault("LISTEN", "127.0.0.1:9000").split(":");
        HttpServer server = HttpServer.create(new InetSocketAddress(listen[0], Integer.parseInt(listen[1])), 0);
        // One thread handles all requests.
        server.createContext("/", exchange -> {
            try (exchange) {
                // The signature covers the body as it came.
                String body = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
                try {
                    webhook.verify(body, HttpHeaders.of(exchange.getRequestHeaders(), (name, value) -> true));
                } catch (WebhookVerificationException refused) {
                    exchange.sendResponseHeaders(401, -1);
                    return;
                }
                JsonNode rollout = new ObjectMapper().readTree(body).get("data");
                String trigger = rollout.get("trigger").asText();
                long number = rollout.get("number").asLong();
                String epoch = rollout.get("epoch").asText();
                int later = epoch.compareTo(epochs.getOrDefault(trigger, ""));
                // A delivery may come twice, and an older one after a newer one. Numbers of a later epoch begin again.
                if (later > 0 || later == 0 && number > last.getOrDefault(trigger, 0L)) {
                    StringBuilder line = new StringBuilder(trigger + "#" + number);
                    rollout.get("images").forEach(image -> line.append(' ').append(image.get("pinned").asText()));
                    System.out.println(line); // deploy here
                    epochs.put(trigger, epoch);
                    last.put(trigger, number);
                }
                exchange.sendResponseHeaders(204, -1);
            }
        });
        server.start();
    }
}
