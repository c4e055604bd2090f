package natslease

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// diagnosis names the fault in words that an operator understands: what the connection was last seen doing, for how
// long, and what that is usually a sign of.
func (f *flight) diagnosis(err error) string {
	if _, ok := f.since(&f.connected); ok {
		return f.sessionDiagnosis(err)
	}
	return f.dialDiagnosis(err)
}

// dialDiagnosis is for a connection that was never complete. The step that was taken and not answered is the fault.
func (f *flight) dialDiagnosis(err error) string {
	var dns *net.DNSError
	lookup, wasLookedUp := f.since(&f.lookup)
	connecting, wasTried := f.since(&f.connecting)
	accepted, isAccepted := f.since(&f.accepted)
	handshake, hasTLS := f.since(&f.handshake)
	asked, isAsked := f.since(&f.asked)
	received := f.received.Load()
	age := time.Since(f.base)
	switch {
	case isDeadline(err) && age < longSilence && !errors.As(err, &dns):
		return fmt.Sprintf("this connection was begun only %s before the deadline.", inSeconds(age))
	case errors.As(err, &dns) && !dns.IsTimeout:
		return fmt.Sprintf("the host's name could not be looked up: %s. Check the name, and the name server.", dns.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens at that address: the server is down or is being restarted, or this is not its port."
	case wasLookedUp && !wasTried, errors.As(err, &dns):
		return fmt.Sprintf("the name server has not answered for %s: the host's address is not known, and nothing was sent to the server.", inSeconds(lookup))
	case !isAccepted && wasTried && isDeadline(err):
		return fmt.Sprintf("nobody has answered the TCP connection for %s: the machine is down, a firewall drops the packets, or the server is too busy to accept.", inSeconds(connecting))
	case !isAccepted:
		return fmt.Sprintf("no connection after %s, because the dialer has not returned one.", inSeconds(age))
	case isCut(err):
		return fmt.Sprintf("the connection was accepted, and closed from the other side before it was complete, %s later: a server that is being shut down, or something between that has no server to pass it to.", inSeconds(accepted))
	case f.isTrickling():
		return "while it was being opened, " + f.trickle()
	case hasTLS && !isAsked:
		return fmt.Sprintf("the TLS handshake was begun %s ago and not completed: the server does not answer it, or something between does not pass it on.", inSeconds(handshake))
	case isAsked:
		return fmt.Sprintf("the server has greeted, but has not answered CONNECT for %s: it is frozen or overloaded.", inSeconds(asked))
	case received == 0:
		return fmt.Sprintf("the TCP connection was accepted %s ago, but the server's greeting (INFO) never came: the server is frozen or overloaded, or what listens there is no NATS server.", inSeconds(accepted))
	case f.midMessage.Load():
		return fmt.Sprintf("the server's greeting (INFO) broke off after %d bytes, %s after the connection was accepted.", received, inSeconds(accepted))
	default:
		return fmt.Sprintf("the server has greeted, and then something failed on this side: %s.", redactError(err))
	}
}

// sessionDiagnosis is for a connection that was in use.
func (f *flight) sessionDiagnosis(err error) string {
	silence, heard := f.since(&f.lastRead)
	written, wrote := f.since(&f.lastWrite)
	ping, pinged := f.since(&f.pingSent)
	stalled, _ := f.since(&f.stalled)
	unsent := f.unsent.Load()
	if !heard {
		silence, _ = f.since(&f.connected)
	}
	switch {
	case isCut(err) && f.midMessage.Load():
		return fmt.Sprintf("the connection was cut from the other side in the middle of a message, %s after the last byte came: the server was killed, or something between has reset the connection.", inSeconds(silence))
	case isCut(err):
		return fmt.Sprintf("the connection was cut from the other side, %s after the last byte came: the server was killed or restarted, or something between has reset the connection.", inSeconds(silence))
	case unsent > 0:
		return fmt.Sprintf("the server does not read what is sent to it: %d bytes wait here since the socket buffer was full, %s ago; last byte received %s ago. The server is frozen or overloaded, or the network is stuck.",
			unsent, inSeconds(stalled), inSeconds(silence))
	case f.isTrickling():
		return f.trickle()
	case pinged && ping < silence:
		return fmt.Sprintf("the server went silent: nothing was received for %s, and a PING sent %s ago was not answered. Its process is frozen or overloaded, or the network loses what is sent.",
			inSeconds(silence), inSeconds(ping))
	case silence >= longSilence && wrote && written < silence+longSilence:
		return fmt.Sprintf("the server has been silent for %s; something was sent to it %s ago. It was not asked for a sign of life yet: it is slow to answer this, or frozen, or the network loses what is sent.",
			inSeconds(silence), inSeconds(written))
	default:
		return fmt.Sprintf("the connection is alive, the last byte came %s ago; only the answer to this is missing: JetStream is overloaded, has no leader for the stream, or cannot write to its disk.", inSeconds(silence))
	}
}

func (f *flight) isTrickling() bool { return f.shortReads.Load() >= manyInARow }

func (f *flight) trickle() string {
	since, _ := f.since(&f.shortSince)
	return fmt.Sprintf("the connection delivers drop by drop: %d times in a row at most %d bytes, in %s. Something between is broken or throttles it.",
		f.shortReads.Load(), shortRead, inSeconds(since))
}

// isCut tells whether err is the end of a connection that the other side has brought about.
func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNABORTED)
}

func inSeconds(d time.Duration) string { return fmt.Sprintf("%.3f s", max(d, 0).Seconds()) }
