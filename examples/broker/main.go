// Command broker is one Kafka-like broker in one process, for the demo and the quick tests.
//
// It prints its address alone on standard output, and ends on SIGTERM or SIGINT.
// It is not Kafka: README.md beside this file says where.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

func main() {
	port := flag.Int("port", 0, "port on loopback; 0 takes a free one")
	data := flag.String("data", "", "folder that keeps the records; empty keeps them in memory")
	flag.Parse()

	options := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.Ports(*port),
		// Kafka's default of 6 s would have the tests of a lost member wait as long.
		kfake.GroupMinSessionTimeout(500 * time.Millisecond),
	}
	if *data != "" {
		options = append(options, kfake.DataDir(*data))
	}
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		log.Fatalf("broker: %v", err)
	}
	defer cluster.Close()

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	fmt.Println(cluster.ListenAddrs()[0])
	<-stop
}
