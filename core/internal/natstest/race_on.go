//go:build race

package natstest

// raceDetector tells whether the tests run under the race detector.
const raceDetector = true
