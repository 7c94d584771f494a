// Command names asks 127.0.0.11 for the names that are its arguments and prints
// how long the answers take: alone, with 100 idle connections held open to the
// server, and how many come when eight ask at once.
package main

import (
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const server = "127.0.0.11:53"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "names:", err)
		os.Exit(1)
	}
}

func run(names []string) error {
	if err := latency("alone", names); err != nil {
		return err
	}
	for range 100 {
		c, err := net.Dial("tcp", server)
		if err != nil {
			return err
		}
		defer c.Close()
	}
	if err := latency("with 100 idle connections", names); err != nil {
		return err
	}
	return rate(names)
}

// latency asks 5,000 times, one after the other.
func latency(what string, names []string) error {
	c, err := net.Dial("udp", server)
	if err != nil {
		return err
	}
	defer c.Close()
	times := make([]time.Duration, 5000)
	for i := range times {
		began := time.Now()
		if err := ask(c, names[i%len(names)], uint16(i)); err != nil {
			return err
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	fmt.Printf("%s: median %v, 99 of 100 within %v\n", what, times[len(times)/2], times[len(times)*99/100])
	return nil
}

// rate asks from eight sockets for three seconds.
func rate(names []string) error {
	var answers atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	end := time.Now().Add(3 * time.Second)
	for range cap(errs) {
		wg.Go(func() {
			c, err := net.Dial("udp", server)
			for i := 0; err == nil && time.Now().Before(end); i++ {
				if err = ask(c, names[i%len(names)], uint16(i)); err == nil {
					answers.Add(1)
				}
			}
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	fmt.Printf("sustained: %d answers a second\n", answers.Load()/3)
	return nil
}

// ask sends one question and reads its answer, which must have an address.
func ask(c net.Conn, name string, id uint16) error {
	q, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return err
	}
	msg := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: q, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	data, err := msg.Pack()
	if err != nil {
		return err
	}
	if _, err := c.Write(data); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(buf[:n]); err != nil {
		return err
	}
	if answer.ID != id || len(answer.Answers) == 0 {
		return fmt.Errorf("%s: %v has no answer", name, answer.RCode)
	}
	return nil
}
