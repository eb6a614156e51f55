package example;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import dev.clerkauthz.v1.AuthzServiceGrpc;
import dev.clerkauthz.v1.CheckOrgPermissionRequest;
import dev.clerkauthz.v1.CheckOrgPermissionResponse;
import dev.clerkauthz.v1.HttpCredentials;
import dev.clerkauthz.v1.Reason;
import dev.clerkauthz.v1.Session;
import dev.clerkauthz.v1.VerifySessionRequest;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/** A web handler that lets in whoever clerk-authz lets in, and nobody when it cannot be told. */
public final class App {
  /** A caller that waits longer than this has better things to do than to wait. */
  private static final long DEADLINE_MILLIS = 500;

  /** Retries are the channel's business: only for "cannot tell", never for a denial. */
  private static final Map<String, Object> SERVICE_CONFIG =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name", List.of(Map.of("service", "clerkauthz.v1.AuthzService")),
                  "retryPolicy",
                      Map.of(
                          "maxAttempts", 3.0,
                          "initialBackoff", "0.05s",
                          "maxBackoff", "0.2s",
                          "backoffMultiplier", 2.0,
                          "retryableStatusCodes", List.of("UNAVAILABLE")))));

  private final AuthzServiceGrpc.AuthzServiceBlockingStub authz;

  private App(ManagedChannel channel) {
    authz = AuthzServiceGrpc.newBlockingStub(channel);
  }

  public static void main(String[] args) throws IOException {
    String address = System.getenv().getOrDefault("AUTHZ_ADDR", "127.0.0.1:50051");
    // One channel for the whole process: it reconnects by itself.
    ManagedChannel channel =
        NettyChannelBuilder.forTarget(address)
            .usePlaintext()
            .defaultLoadBalancingPolicy("round_robin")
            .defaultServiceConfig(SERVICE_CONFIG)
            .enableRetry()
            .keepAliveTime(30, TimeUnit.SECONDS)
            .build();
    int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "0"));
    HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
    server.createContext("/", new App(channel)::handle);
    server.setExecutor(Executors.newFixedThreadPool(8));
    server.start();
    System.out.println("listening on http://127.0.0.1:" + server.getAddress().getPort());
  }

  private void handle(HttpExchange exchange) throws IOException {
    try {
      if (exchange.getRequestMethod().equals("POST")) {
        makeInvoice(exchange);
      } else {
        who(exchange);
      }
    } catch (Forbidden forbidden) {
      reply(
          exchange,
          403,
          "{\"reason\":\"%s\",\"decision_id\":\"%s\"}"
              .formatted(forbidden.reason, forbidden.decisionId));
    } catch (StatusRuntimeException error) {
      Details details = Details.of(error);
      if (error.getStatus().getCode() == io.grpc.Status.Code.UNAUTHENTICATED) {
        exchange.getResponseHeaders().set("www-authenticate", "Bearer");
        reply(exchange, 401, "{\"reason\":\"%s\"}".formatted(details.reason));
      } else {
        // Everything else, whatever it is, is not a yes.
        exchange.getResponseHeaders().set("retry-after", String.valueOf(details.retryAfterSeconds));
        String reason =
            details.reason.isEmpty() ? error.getStatus().getCode().name() : details.reason;
        reply(exchange, 503, "{\"reason\":\"%s\"}".formatted(reason));
      }
    }
  }

  /** Who am I? */
  private void who(HttpExchange exchange) throws IOException {
    Session session = verify(exchange.getRequestHeaders());
    reply(
        exchange,
        200,
        "{\"user_id\":\"%s\",\"organization\":\"%s\",\"role\":\"%s\"}"
            .formatted(
                session.getUserId(),
                session.getOrganization().getId(),
                session.getOrganization().getRole()));
  }

  /** Make an invoice, in the organization that is active in the session. */
  private void makeInvoice(HttpExchange exchange) throws IOException {
    CheckOrgPermissionRequest.Builder asked =
        CheckOrgPermissionRequest.newBuilder().setPermission("org:invoices:create");
    CheckOrgPermissionResponse decision = require(exchange.getRequestHeaders(), asked);
    reply(
        exchange, 201, "{\"organization\":\"%s\"}".formatted(decision.getOrganizationId()));
  }

  private Session verify(Headers headers) {
    return authz
        .withDeadlineAfter(DEADLINE_MILLIS, TimeUnit.MILLISECONDS)
        .verifySession(VerifySessionRequest.newBuilder().setHttp(credentials(headers)).build())
        .getSession();
  }

  /** Passes only if the caller may; {@code asked} is everything but the subject. */
  private CheckOrgPermissionResponse require(
      Headers headers, CheckOrgPermissionRequest.Builder asked) {
    CheckOrgPermissionResponse answer =
        authz
            .withDeadlineAfter(DEADLINE_MILLIS, TimeUnit.MILLISECONDS)
            .checkOrgPermission(asked.setHttp(credentials(headers)).build());
    // A "no" about a permission is an answer: forget to look, and everybody is let in.
    if (!answer.getAllowed()) {
      throw new Forbidden(answer);
    }
    return answer;
  }

  /** The values as they were received, all of them. */
  private static HttpCredentials credentials(Headers headers) {
    return HttpCredentials.newBuilder()
        .addAllAuthorization(headers.getOrDefault("authorization", List.of()))
        .addAllCookie(headers.getOrDefault("cookie", List.of()))
        .build();
  }

  /** The token is good, and its user may not; the decision is found in the service's log. */
  private static final class Forbidden extends RuntimeException {
    private static final long serialVersionUID = 1;

    final String reason;
    final String decisionId;

    Forbidden(CheckOrgPermissionResponse answer) {
      // A reason of a newer service has no name here.
      reason =
          answer.getReason() == Reason.UNRECOGNIZED
              ? String.valueOf(answer.getReasonValue())
              : answer.getReason().name().replaceFirst("^REASON_", "");
      decisionId = answer.getDecisionId();
    }
  }

  private static void reply(HttpExchange exchange, int code, String body) throws IOException {
    byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
    exchange.getResponseHeaders().set("content-type", "application/json");
    exchange.sendResponseHeaders(code, bytes.length);
    exchange.getResponseBody().write(bytes);
    exchange.close();
  }

  /** The reason of ErrorInfo and the delay of RetryInfo, in whole seconds. */
  private record Details(String reason, long retryAfterSeconds) {
    static Details of(StatusRuntimeException error) {
      String reason = "";
      long retryAfter = 1;
      io.grpc.Metadata trailers = error.getTrailers();
      byte[] bytes =
          trailers == null
              ? null
              : trailers.get(
                  io.grpc.Metadata.Key.of(
                      "grpc-status-details-bin", io.grpc.Metadata.BINARY_BYTE_MARSHALLER));
      try {
        if (bytes != null) {
          for (com.google.protobuf.Any detail : Status.parseFrom(bytes).getDetailsList()) {
            if (detail.is(ErrorInfo.class)) {
              reason = detail.unpack(ErrorInfo.class).getReason();
            } else if (detail.is(RetryInfo.class)) {
              long seconds = detail.unpack(RetryInfo.class).getRetryDelay().getSeconds();
              retryAfter = Math.max(1, seconds);
            }
          }
        }
      } catch (InvalidProtocolBufferException unreadable) {
        // Without a reason the answer is still not a yes.
        reason = "";
      }
      return new Details(reason, retryAfter);
    }
  }
}
