package natslease

import "context"

// AccountInfo is what the server says of the account's use of JetStream.
type AccountInfo struct {
	Memory    uint64        `json:"memory"` // bytes
	Storage   uint64        `json:"storage"`
	Streams   int           `json:"streams"`
	Consumers int           `json:"consumers"`
	Limits    AccountLimits `json:"limits"`
	Domain    string        `json:"domain"` // "" where there is none
	API       struct {
		Total  uint64 `json:"total"`
		Errors uint64 `json:"errors"`
	} `json:"api"` // requests so far
}

// AccountLimits are the most that an account may have; -1 where there is no limit. Where the limits depend on how many
// replicas a stream has, they are 0 here.
type AccountLimits struct {
	MaxMemory    int64 `json:"max_memory"` // bytes
	MaxStorage   int64 `json:"max_storage"`
	MaxStreams   int   `json:"max_streams"`
	MaxConsumers int   `json:"max_consumers"`
}

// Account asks the server about the account. Its error is of CodeQueueUnavailable when JetStream is off.
func (c *Client) Account(ctx context.Context) (AccountInfo, error) {
	const operation = "account"
	ctx, cancel, err := c.begin(ctx, c.hub.calling)
	if err != nil {
		return AccountInfo{}, inOperation(operation, err, OutcomeNotSent)
	}
	defer cancel()
	var info AccountInfo
	refusal, err := c.hub.api(ctx, "INFO", nil, &info)
	if err == nil && refusal != nil {
		err = refusal.asError()
	}
	if err != nil {
		return AccountInfo{}, inOperation(operation, err, OutcomeNotSent)
	}
	return info, nil
}
