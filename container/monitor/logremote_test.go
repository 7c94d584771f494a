package monitor

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// deafSyslog is a server that takes what its socket's queue holds and reads nothing.
func deafSyslog(t *testing.T) (address string, server *net.UnixConn) {
	path := filepath.Join(t.TempDir(), "log")
	server, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return "unix://" + path, server
}

func syslogConfig(t *testing.T, address, mode string) LogConfig {
	return LogConfig{Driver: driverSyslog, Path: filepath.Join(t.TempDir(), "json.log"), Tag: "t",
		Options: map[string]string{"syslog-address": address, "mode": mode}}
}

func TestDeafSyslogDoesNotHoldUpTheEndOfANonBlockingLog(t *testing.T) {
	address, _ := deafSyslog(t)
	c := syslogConfig(t, address, nonBlocking)
	log, err := openLog(c)
	if err != nil {
		t.Fatal(err)
	}
	const lines = 1000
	var want strings.Builder
	begin := time.Now()
	for i := range lines {
		line := fmt.Sprintf("line %d\n", i)
		want.WriteString(line)
		log.write(kindStdout, time.Now(), []byte(line))
	}
	log.end(kindStdout)
	log.close()
	if took := time.Since(begin); took > 2*queuePatience {
		t.Errorf("the log's end took %v", took)
	}
	if out, _ := readAll(t, c, ReadOptions{Tail: -1}); out != want.String() {
		t.Errorf("the file has %d bytes of %d", len(out), want.Len())
	}
}

func TestSyslogTakesAllThatANonBlockingLogQueued(t *testing.T) {
	address, server := deafSyslog(t)
	log, err := openLog(syslogConfig(t, address, nonBlocking))
	if err != nil {
		t.Fatal(err)
	}
	const lines = 500
	got := make(chan int)
	go func() {
		buf, n := make([]byte, 1024), 0
		for ; n < lines; n++ {
			server.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := server.Read(buf); err != nil {
				break
			}
		}
		got <- n
	}()
	for range lines {
		log.write(kindStderr, time.Now(), []byte("x\n"))
	}
	log.(interface{ flush() }).flush()
	log.close()
	if n := <-got; n != lines {
		t.Errorf("%d lines arrived of %d", n, lines)
	}
}

func TestDeafSyslogIsGivenUpForAWhile(t *testing.T) {
	if testing.Short() {
		t.Skip("needs some seconds")
	}
	address, _ := deafSyslog(t)
	log, err := openLog(syslogConfig(t, address, "blocking"))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for range 1000 {
		log.write(kindStdout, time.Now(), []byte("line\n"))
	}
	log.end(kindStdout)
	log.close()
	if took := time.Since(begin); took > remoteWait+remotePause/2 {
		t.Errorf("1000 lines took %v: one wait is enough", took)
	}
}
