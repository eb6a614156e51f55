// Calls a method through Envoy, with an empty message, and prints the status' name, the reason in its
// details and the message. A method Watch answers a stream.
//
//	call ADDR METHOD AUTHORIZATION
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

func call(addr, method, authorization string) error {
	connection, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if authorization != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", authorization)
	}
	if !strings.HasSuffix(method, "/Watch") {
		return connection.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{})
	}
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return err
	}
	// What is wrong with sending is told by receiving.
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(&emptypb.Empty{})
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "call ADDR METHOD AUTHORIZATION")
		os.Exit(2)
	}
	err := call(os.Args[1], os.Args[2], os.Args[3])
	answer, ok := status.FromError(err)
	if !ok {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	reason, message := "-", answer.Message()
	for _, detail := range answer.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "clerk-authz" {
			reason = info.GetReason()
		}
	}
	if message == "" {
		message = "-"
	}
	fmt.Println(answer.Code(), reason, message)
}
