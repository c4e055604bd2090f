package natstest

import (
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
)

// Operator makes an operator with one account and one user: the option that lets a server know them, and the contents
// of the user's credentials file.
func Operator(t testing.TB) (Option, string) {
	t.Helper()
	operator, operatorID := newPair(t, nkeys.CreateOperator)
	account, accountID := newPair(t, nkeys.CreateAccount)
	system, systemID := newPair(t, nkeys.CreateAccount)
	user, userID := newPair(t, nkeys.CreateUser)

	operatorClaims := jwt.NewOperatorClaims(operatorID)
	operatorClaims.SystemAccount = systemID
	operatorToken, err := operatorClaims.Encode(operator)
	require.NoError(t, err)
	operatorClaims, err = jwt.DecodeOperatorClaims(operatorToken)
	require.NoError(t, err)

	resolver := &server.MemAccResolver{}
	for id, withJetStream := range map[string]bool{accountID: true, systemID: false} {
		claims := jwt.NewAccountClaims(id)
		if withJetStream {
			claims.Limits.JetStreamLimits = jwt.JetStreamLimits{
				MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit,
			}
		}
		token, err := claims.Encode(operator)
		require.NoError(t, err)
		require.NoError(t, resolver.Store(id, token))
	}
	system.Wipe()

	userToken, err := jwt.NewUserClaims(userID).Encode(account)
	require.NoError(t, err)
	seed, err := user.Seed()
	require.NoError(t, err)
	creds, err := jwt.FormatUserConfig(userToken, seed)
	require.NoError(t, err)

	return func(o *server.Options) {
		o.TrustedOperators = []*jwt.OperatorClaims{operatorClaims}
		o.SystemAccount = systemID
		o.AccountResolver = resolver
	}, string(creds)
}

// NewUserKey makes a user's nkey: its seed and its public key.
func NewUserKey(t testing.TB) (seed, public string) {
	t.Helper()
	pair, public := newPair(t, nkeys.CreateUser)
	raw, err := pair.Seed()
	require.NoError(t, err)
	return string(raw), public
}

func newPair(t testing.TB, create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
	t.Helper()
	pair, err := create()
	require.NoError(t, err)
	public, err := pair.PublicKey()
	require.NoError(t, err)
	return pair, public
}
