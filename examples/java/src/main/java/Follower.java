import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.launchdarkly.eventsource.ErrorStrategy;
import com.launchdarkly.eventsource.EventSource;
import com.launchdarkly.eventsource.MessageEvent;
import java.net.URI;

/** Follows the live feed of TAGTRAIL_API. The library reconnects by itself, and goes on after the last event. */
public class Follower {
    public static void main(String[] arguments) throws Exception {
        String api = System.getenv().getOrDefault("TAGTRAIL_API", "http://127.0.0.1:8401");
        EventSource.Builder builder = new EventSource.Builder(URI.create(api + "/v1/revisions"));
        // Without this strategy the first error ends the program.
        try (EventSource events = builder.errorStrategy(ErrorStrategy.alwaysContinue()).build()) {
            for (MessageEvent event : events.messages()) {
                // Look at the name: `place` and names of later versions are no revisions.
                if (event.getEventName().equals("revision")) {
                    JsonNode revision = new ObjectMapper().readTree(event.getData());
                    JsonNode data = revision.get("data");
                    System.out.println(revision.get("subject").asText() + "#" + data.get("revision") + " " + data.get("digest").asText());
                }
            }
        }
    }
}
