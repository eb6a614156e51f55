package example;

import dev.clerkauthz.v1.AuthzServiceGrpc;
import dev.clerkauthz.v1.User;
import dev.clerkauthz.v1.WatchUsersRequest;
import dev.clerkauthz.v1.WatchUsersResponse;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

/** Keeps a copy of the users. */
public final class Watch {
  /** The first pause after a break, and the longest. */
  private static final long PAUSE_MILLIS = 200;

  private static final long MAX_PAUSE_MILLIS = 10_000;

  /**
   * The users, in memory. A copy that shall outlive the process keeps users, marks and the token in
   * one transaction.
   */
  private final Map<String, User> users = new HashMap<>();

  /** Who has come since the snapshot was begun. */
  private final Set<String> seen = new HashSet<>();

  private String token = "";

  public static void main(String[] args) throws InterruptedException {
    String address = System.getenv().getOrDefault("AUTHZ_ADDR", "127.0.0.1:50051");
    ManagedChannel channel =
        NettyChannelBuilder.forTarget(address)
            .usePlaintext()
            .defaultLoadBalancingPolicy("round_robin")
            .keepAliveTime(30, TimeUnit.SECONDS)
            .build();
    new Watch().follow(AuthzServiceGrpc.newBlockingStub(channel));
  }

  /** Never ends: whatever breaks, it goes on behind the last message. */
  private void follow(AuthzServiceGrpc.AuthzServiceBlockingStub authz) throws InterruptedException {
    long pause = PAUSE_MILLIS;
    while (true) {
      try {
        var request = WatchUsersRequest.newBuilder().setResumeToken(token).build();
        for (var messages = authz.watchUsers(request); messages.hasNext(); ) {
          take(messages.next());
          pause = PAUSE_MILLIS;
        }
      } catch (StatusRuntimeException error) {
        Status.Code code = error.getStatus().getCode();
        System.out.println("broken: " + code + " " + error.getStatus().getDescription());
        if (code == Status.Code.INVALID_ARGUMENT) {
          throw error; // a fault of ours that no repetition mends
        }
        if (code == Status.Code.OUT_OF_RANGE) {
          token = "";
          seen.clear();
        }
      }
      // By chance, so that not all come back at once.
      Thread.sleep(ThreadLocalRandom.current().nextLong(pause / 2, pause + 1));
      pause = Math.min(2 * pause, MAX_PAUSE_MILLIS);
    }
  }

  private void take(WatchUsersResponse message) {
    switch (message.getChangeCase()) {
      case USER -> {
        User user = message.getUser();
        users.put(user.getId(), user);
        seen.add(user.getId());
        System.out.println("user " + user.getId() + " " + user.getFirstName());
      }
      case USER_DELETED -> {
        String id = message.getUserDeleted().getUserId();
        users.remove(id);
        System.out.println("gone " + id);
      }
      case SNAPSHOT_COMPLETE -> {
        users.keySet().retainAll(seen);
        seen.clear();
        System.out.println("complete: " + users.size() + " users");
      }
      default -> {
        // A heartbeat, or what a newer service tells, moves the token only.
      }
    }
    token = message.getResumeToken();
  }
}
