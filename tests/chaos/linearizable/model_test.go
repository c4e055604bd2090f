package main

import (
	"slices"
	"testing"
)

const second = int64(1e9)

// during is an event from the given begin to the given end, in seconds.
func during(kind string, begin, end float64) event {
	return event{Task: "t", Kind: kind, Begin: int64(begin * 1e9), End: int64(end * 1e9)}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	publish, drained := during("publish", 1, 2), during("drained", 90, 91)
	for name, c := range map[string]struct {
		events  []event
		outages []outage
		wrong   bool
	}{
		"done": {events: []event{publish, during("reserve", 2, 3), during("ack", 3, 4), drained}},
		"accepted later than delivered": {
			events: []event{during("publish", 1, 9), during("reserve", 2, 3), during("ack", 3, 4), drained},
		},
		"published, perhaps":       {events: []event{during("publish", 1, 0), drained}},
		"given back":               {events: []event{publish, during("reserve", 2, 3), during("nak", 3, 4), during("reserve", 3.5, 5), during("ack", 5, 6), drained}},
		"run out":                  {events: []event{publish, during("reserve", 2, 3), during("reserve", 4, 5), during("ack", 5, 6), drained}},
		"acked, perhaps":           {events: []event{publish, during("reserve", 2, 3), during("ack", 3, 0), drained}},
		"acked, and perhaps not":   {events: []event{publish, during("reserve", 2, 3), during("ack", 3, 0), during("reserve", 5, 6), during("ack", 6, 7), drained}},
		"forgotten with a server":  {events: []event{publish, during("reserve", 2, 3), during("ack", 3, 4), during("reserve", 6, 7), during("ack", 7, 8), drained}, outages: []outage{{5 * second, 6 * second}}},
		"lost":                     {events: []event{publish, drained}, wrong: true},
		"lost after a lease":       {events: []event{publish, during("reserve", 2, 3), drained}, wrong: true},
		"never published":          {events: []event{during("reserve", 2, 3)}, wrong: true},
		"held by two":              {events: []event{publish, during("reserve", 2, 3), during("reserve", 3.1, 3.5), during("ack", 5, 6), drained}, wrong: true},
		"seen again":               {events: []event{publish, during("reserve", 2, 3), during("ack", 3, 4), during("reserve", 8, 9), drained}, wrong: true},
		"an outage long after":     {events: []event{publish, during("reserve", 2, 3), during("ack", 3, 4), during("reserve", 15, 16), drained}, outages: []outage{{14 * second, 15 * second}}, wrong: true},
		"in the queue twice":       {events: []event{publish, during("reserve", 2, 3), during("ack", 3, 4), during("reserve", 4.5, 5), during("ack", 5, 6), drained}, wrong: true},
		"given back after the ack": {events: []event{publish, during("reserve", 2, 3), during("ack", 3, 4), during("nak", 4, 5), during("reserve", 5, 6)}, wrong: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := history{AckWait: 2 * second, Forgotten: 2 * second, Unheard: 10 * second, Outages: c.outages, Events: c.events}
			wrong, tasks := h.check()
			if want := []string{"t"}; tasks != 1 || c.wrong != slices.Equal(wrong, want) {
				t.Errorf("%d tasks, wrong: %v", tasks, wrong)
			}
		})
	}
}
