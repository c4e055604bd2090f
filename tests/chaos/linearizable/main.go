// Command linearizable reads the history of a run of chaos.py and looks, with porcupine, for an order of the events of
// each task in which a task is published, held by one lease at a time, given back, and done for ever. It ends with 1 when
// a task has none.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: linearizable HISTORY")
		os.Exit(2)
	}
	h, err := load(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	wrong, tasks := h.check()
	fmt.Printf("%d tasks, %d events: %d without a linearization\n", tasks, len(h.Events), len(wrong))
	for _, id := range wrong[:min(len(wrong), 5)] {
		for _, e := range h.Events {
			if e.Task == id {
				fmt.Printf("  %+v\n", e)
			}
		}
	}
	if len(wrong) > 0 || tasks == 0 {
		os.Exit(1)
	}
}

func load(path string) (*history, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var h history
	if err := json.Unmarshal(data, &h); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &h, nil
}
