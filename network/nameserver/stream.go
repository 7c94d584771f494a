package nameserver

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"time"
)

// acceptStreams serves TCP; see RFC 7766. Connections over the bound are closed
// at once.
func (s *server) acceptStreams(ctx context.Context, l *net.TCPListener) {
	open := make(chan struct{}, maxStreams)
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			if ctx.Err() != nil || !temporary(err) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors
			continue
		}
		select {
		case open <- struct{}{}:
			s.work.Go(func() {
				defer func() { <-open }()
				s.serveStream(ctx, c)
			})
		default:
			c.Close()
		}
	}
}

func temporary(err error) bool {
	t, ok := err.(interface{ Temporary() bool })
	return ok && t.Temporary()
}

// serveStream answers the questions of one connection, one after the other.
func (s *server) serveStream(ctx context.Context, c *net.TCPConn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	for {
		c.SetDeadline(time.Now().Add(streamIdle))
		question, err := readMessage(c)
		if err != nil {
			return
		}
		a := s.answer(question, nil, true)
		if a.forward {
			select {
			case s.slots <- struct{}{}:
				a.reply = s.forward(ctx, question, maxMessage, true)
				<-s.slots
			default:
				a.reply = refuse(question, rcodeRefused)
			}
			// Other servers may have taken longer than an idle client may.
			c.SetDeadline(time.Now().Add(streamIdle))
		}
		if len(a.reply) == 0 || writeMessage(c, a.reply) != nil {
			return
		}
	}
}

// maxMessage is what two bytes of length can say.
const maxMessage = 1<<16 - 1

// readMessage reads a message with its length before it; RFC 1035, section 4.2.2.
func readMessage(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}

func writeMessage(w io.Writer, msg []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg))), msg...))
	return err
}
