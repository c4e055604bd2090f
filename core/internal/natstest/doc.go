// Package natstest is the test kit of natslease: servers that can be frozen, killed and restarted, and networks that
// fail in every way that promise 1 names. Only tests import it, and only it and tests import nats-server.
package natstest
