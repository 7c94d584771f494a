package monitor

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// syslogAddress is where syslog-address leads.
type syslogAddress struct {
	network string // unixgram, unix, udp, tcp; "tls" is tcp with TLS
	address string
}

func parseSyslogAddress(s string) (syslogAddress, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	bad := fmt.Errorf("%q: want unix://PATH, udp://HOST[:PORT], tcp://HOST[:PORT] or tcp+tls://HOST[:PORT]", s)
	switch {
	case s == "":
		return syslogAddress{"unixgram", "/dev/log"}, nil
	case !ok || rest == "":
		return syslogAddress{}, bad
	case scheme == "unix" || scheme == "unixgram":
		if !strings.HasPrefix(rest, "/") {
			return syslogAddress{}, bad
		}
		return syslogAddress{"unixgram", rest}, nil
	case scheme == "udp" || scheme == "tcp" || scheme == "tcp+tls":
		port := "514"
		if scheme == "tcp+tls" {
			scheme, port = "tls", "6514"
		}
		host := rest
		if h, p, err := net.SplitHostPort(rest); err == nil {
			host, port = h, p
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
			return syslogAddress{}, bad
		}
		return syslogAddress{scheme, net.JoinHostPort(strings.Trim(host, "[]"), port)}, nil
	}
	return syslogAddress{}, bad
}

var facilities = [...]string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
	"12", "13", "14", "15", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}

func parseFacility(s string) (int, error) {
	if s == "" {
		s = "daemon"
	}
	for i, name := range facilities {
		if s == name || s == strconv.Itoa(i) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%q: no such facility", s)
}

var syslogFormats = map[string]string{
	"": "", "rfc3164": "", "rfc5424": "2006-01-02T15:04:05Z07:00", "rfc5424micro": "2006-01-02T15:04:05.000000Z07:00",
}

// syslog sends each line as a message of RFC 3164 or RFC 5424.
type syslog struct {
	syslogAddress
	facility int
	stamp    string // of RFC 5424; "" for RFC 3164
	tag      string
	host     string
	tls      *tls.Config
	buf      []byte

	mu     sync.Mutex
	conn   net.Conn
	closed bool
	// broken is when the connection was lost, or could not be made.
	broken time.Time
}

func newSyslog(c LogConfig) (s *syslog, err error) {
	o := c.Options
	s = &syslog{tag: c.Tag}
	if s.syslogAddress, err = parseSyslogAddress(o["syslog-address"]); err != nil {
		return nil, fmt.Errorf("--log-opt syslog-address: %w", err)
	}
	if s.facility, err = parseFacility(o["syslog-facility"]); err != nil {
		return nil, fmt.Errorf("--log-opt syslog-facility: %w", err)
	}
	var known bool
	if s.stamp, known = syslogFormats[o["syslog-format"]]; !known {
		return nil, fmt.Errorf("--log-opt syslog-format=%s: want rfc3164, rfc5424 or rfc5424micro", o["syslog-format"])
	}
	if s.network == "tls" {
		s.tls, err = syslogTLS(o)
	}
	return s, err
}

func openSyslog(c LogConfig) (sink, error) {
	s, err := newSyslog(c)
	if err != nil {
		return nil, err
	}
	s.host, _ = os.Hostname()
	if err := s.connect(); err != nil {
		return nil, fmt.Errorf("--log-driver syslog: %w", err)
	}
	return s, nil
}

func syslogTLS(o map[string]string) (*tls.Config, error) {
	skip, _ := strconv.ParseBool(o["syslog-tls-skip-verify"])
	c := &tls.Config{InsecureSkipVerify: skip, MinVersion: tls.VersionTLS12}
	if ca := o["syslog-tls-ca-cert"]; ca != "" {
		data, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("--log-opt syslog-tls-ca-cert: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("--log-opt syslog-tls-ca-cert=%s: no certificate", ca)
		}
	}
	if cert, key := o["syslog-tls-cert"], o["syslog-tls-key"]; cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("--log-opt syslog-tls-cert: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// A server that does not answer holds the container up for no longer than
// remoteWait; then lines are dropped for remotePause before the next try.
const (
	remoteWait  = 5 * time.Second
	remotePause = 10 * time.Second
)

func (s *syslog) connect() error {
	conn, err := s.dial()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.conn, s.broken = nil, time.Now()
		return err
	case s.closed:
		conn.Close()
		return net.ErrClosed
	}
	s.conn = conn
	return nil
}

func (s *syslog) dial() (net.Conn, error) {
	dialer := &net.Dialer{Timeout: remoteWait}
	switch s.network {
	case "tls":
		return tls.DialWithDialer(dialer, "tcp", s.address, s.tls)
	case "unixgram":
		if conn, err := dialer.Dial("unixgram", s.address); err == nil {
			return conn, nil
		}
		return dialer.Dial("unix", s.address)
	}
	return dialer.Dial(s.network, s.address)
}

// connection is the one that stands, or nil.
func (s *syslog) connection() net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn
}

// stream reports whether messages have to be told apart by newlines.
func (s *syslog) stream() bool { return s.network == "tcp" || s.network == "tls" }

func (s *syslog) send(l line) error {
	if s.connection() == nil {
		if time.Since(s.broken) < remotePause {
			return errors.New("syslog: not connected")
		}
		if err := s.connect(); err != nil {
			return err
		}
	}
	s.buf = s.message(s.buf[:0], l)
	err := s.put()
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	// The server may have been started anew: once more.
	if err := s.connect(); err != nil {
		return err
	}
	return s.put()
}

// put writes the message. A connection on which that fails is given up.
func (s *syslog) put() error {
	conn := s.connection()
	if conn == nil {
		return net.ErrClosed
	}
	conn.SetWriteDeadline(time.Now().Add(remoteWait))
	_, err := conn.Write(s.buf)
	if err != nil {
		conn.Close()
		s.mu.Lock()
		s.conn, s.broken = nil, time.Now()
		s.mu.Unlock()
	}
	return err
}

// message words a line; a control byte in it cannot end the message.
func (s *syslog) message(b []byte, l line) []byte {
	severity := 6 // informational
	if l.stderr {
		severity = 3 // error
	}
	pid := os.Getpid()
	switch {
	case s.stamp != "":
		b = fmt.Appendf(b, "<%d>1 %s %s %s %d %s - ", s.facility*8+severity, l.time.Format(s.stamp), s.host, s.tag, pid, s.tag)
	case s.network == "unixgram":
		b = fmt.Appendf(b, "<%d>%s %s[%d]: ", s.facility*8+severity, l.time.Format(time.Stamp), s.tag, pid)
	default:
		b = fmt.Appendf(b, "<%d>%s %s %s[%d]: ", s.facility*8+severity, l.time.Format(time.Stamp), s.host, s.tag, pid)
	}
	start := len(b)
	b = append(b, l.text...)
	for i := start; i < len(b); i++ {
		if b[i] == '\n' || b[i] == 0 {
			b[i] = ' '
		}
	}
	if s.stream() {
		b = append(b, '\n')
	}
	return b
}

// close also ends a send that waits.
func (s *syslog) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.conn != nil {
		s.conn.Close()
	}
}
