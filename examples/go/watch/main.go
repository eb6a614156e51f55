// Keeps a copy of the users.
package main

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	clerkauthzv1 "example.com/clerk-authz-example/gen/clerkauthz/v1"
)

// The first pause after a break, and the longest.
const (
	minPause = 200 * time.Millisecond
	maxPause = 10 * time.Second
)

// users is the copy, in memory. One that shall outlive the process keeps users, marks and the token in
// one transaction.
type users struct {
	byID  map[string]*clerkauthzv1.User
	token string
	// Who has come since the snapshot was begun.
	seen map[string]bool
}

func (u *users) beginAnew() {
	u.token = ""
	clear(u.seen)
}

func (u *users) take(message *clerkauthzv1.WatchUsersResponse) {
	switch change := message.GetChange().(type) {
	case *clerkauthzv1.WatchUsersResponse_User:
		u.byID[change.User.GetId()] = change.User
		u.seen[change.User.GetId()] = true
		fmt.Println("user", change.User.GetId(), change.User.GetFirstName())
	case *clerkauthzv1.WatchUsersResponse_UserDeleted:
		delete(u.byID, change.UserDeleted.GetUserId())
		fmt.Println("gone", change.UserDeleted.GetUserId())
	case *clerkauthzv1.WatchUsersResponse_SnapshotComplete:
		for id := range u.byID {
			if !u.seen[id] {
				delete(u.byID, id)
			}
		}
		clear(u.seen)
		fmt.Printf("complete: %d users\n", len(u.byID))
	default: // A heartbeat, or what a newer service tells, moves the token only.
	}
	u.token = message.GetResumeToken()
}

// follow takes messages until the stream breaks.
func (u *users) follow(ctx context.Context, client clerkauthzv1.AuthzServiceClient, taken func()) error {
	stream, err := client.WatchUsers(ctx, &clerkauthzv1.WatchUsersRequest{ResumeToken: u.token})
	for err == nil {
		var message *clerkauthzv1.WatchUsersResponse
		if message, err = stream.Recv(); err == nil {
			u.take(message)
			taken()
		}
	}
	return err
}

func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func main() {
	address := os.Getenv("AUTHZ_ADDR")
	if address == "" {
		address = "127.0.0.1:50051"
	}
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second}),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := clerkauthzv1.NewAuthzServiceClient(connection)
	copied := users{byID: map[string]*clerkauthzv1.User{}, seen: map[string]bool{}}

	// Never ends: whatever breaks, it goes on behind the last message.
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		err := copied.follow(context.Background(), client, func() { pause = minPause })
		fmt.Println("broken:", status.Code(err), reason(err))
		switch status.Code(err) {
		case codes.InvalidArgument:
			log.Fatal(err) // a fault of ours that no repetition mends
		case codes.OutOfRange:
			copied.beginAnew()
		}
		// By chance, so that not all come back at once.
		time.Sleep(pause/2 + rand.N(pause/2))
	}
}
