//go:build !race

package natstest

// RaceDetector tells whether the tests run under the race detector.
const RaceDetector = false
