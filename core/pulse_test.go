package natslease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPulse(t *testing.T) {
	t.Parallel()
	const ms = int64(time.Millisecond)
	running := func(until int64) *pulse {
		p := new(pulse)
		p.begin(1000 * ms)
		for now := 1100 * ms; now <= until; now += 100 * ms {
			p.beat(now)
		}
		return p
	}
	p := running(2000 * ms)
	require.Equal(t, 2050*ms, p.arrival(2050*ms), "what is read while it runs has just come")
	require.Equal(t, 2000*ms, p.arrival(9000*ms), "read before the stop is noticed")
	p.beat(9000 * ms)
	require.Equal(t, 2000*ms, p.arrival(9001*ms), "read after it is noticed")
	require.Equal(t, 2000*ms, p.arrival(9900*ms), "there may be much to read")
	p.beat(9100 * ms)
	require.Equal(t, 2000*ms, p.arrival(9150*ms))
	for now := 9200 * ms; now <= 11_000*ms; now += 100 * ms {
		p.beat(now)
	}
	require.Equal(t, 11_050*ms, p.arrival(11_050*ms), "everything has been read")

	p = running(2000 * ms)
	p.begin(60_000 * ms) // nothing was awaited since: nothing can have come
	require.Equal(t, 60_100*ms, p.arrival(60_100*ms))
	require.Equal(t, int64(50), new(pulse).arrival(50))
}
