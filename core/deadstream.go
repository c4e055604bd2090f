package natslease

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
)

func (q *Queue) advisorySubject() string {
	return maxDeliveriesAdvisories + q.cfg.Stream + "." + q.cfg.Consumer
}

// streamsOver names the streams that take a subject.
func (h *hub) streamsOver(ctx context.Context, subject string) ([]string, error) {
	var names struct {
		Streams []string `json:"streams"`
	}
	failure, err := h.api(ctx, "STREAM.NAMES", map[string]string{"subject": subject}, &names)
	if err == nil && failure != nil {
		err = failure.asError()
	}
	return names.Streams, err
}

// deadLetterStream is what Ensure creates; what exists is only asked for its subjects.
type deadLetterStream struct {
	Name      string   `json:"name"`
	Subjects  []string `json:"subjects"`
	Retention string   `json:"retention"`
	Storage   string   `json:"storage"`
	Replicas  int      `json:"num_replicas"`
}

// ensureDeadLetters makes the dead-letter stream, if the queue has one, and sees to it that some stream takes the
// server's advisories. Two cannot, so one that does, whoever made it, is left to it.
func (q *Queue) ensureDeadLetters(ctx context.Context, conflict Conflict) error {
	if q.cfg.DeadLetters == "" {
		return nil
	}
	// All advisories, or else, where another stream takes some of them, those of this queue.
	advisories := []string{maxDeliveriesAdvisories + ">", q.advisorySubject()}
	for {
		streams, err := q.hub.streamsOver(ctx, q.advisorySubject())
		if err != nil {
			return err
		}
		var subjects []string
		if len(streams) == 0 && len(advisories) > 0 {
			subjects = advisories[:1]
		}
		failure, err := q.ensureLetterSubjects(ctx, conflict, subjects)
		switch {
		case err != nil:
			return err
		case failure == nil:
			return nil
		case failure.ErrCode == errCodeStreamNameInUse: // somebody else was faster
		case len(subjects) > 0 && (failure.ErrCode == errCodeSubjectOverlap || failure.ErrCode == errCodeStreamConfig):
			// Another stream takes some of them, or this one does.
			advisories = advisories[1:]
		default:
			return failure.asError()
		}
	}
}

// ensureLetterSubjects makes the dead-letter stream take copies, and the given subjects besides.
func (q *Queue) ensureLetterSubjects(ctx context.Context, conflict Conflict, besides []string) (*apiError, error) {
	name := q.cfg.DeadLetters
	var info streamInfo
	failure, err := q.hub.api(ctx, "STREAM.INFO."+name, nil, &info)
	if err != nil {
		return nil, err
	}
	if failure != nil && failure.ErrCode == errCodeStreamNotFound {
		want := deadLetterStream{
			Name: name, Subjects: append([]string{name + ".>"}, besides...), Retention: "limits",
			Storage: q.cfg.Storage, Replicas: q.cfg.Replicas,
		}
		return q.hub.api(ctx, "STREAM.CREATE."+name, want, nil)
	}
	if failure != nil {
		return failure, nil
	}
	var have deadLetterStream
	if err := json.Unmarshal(info.Config, &have); err != nil {
		return nil, newError(CodeServer, OutcomeUnknown, "the configuration of the stream %s could not be read: %s", name, err)
	}
	subjects := slices.Clone(have.Subjects)
	if !covered(subjects, name+"."+q.cfg.Stream+"."+q.cfg.Consumer+".1.1") {
		if conflict != ConflictUpdate {
			return nil, configError("stream %s takes %s, not the dead letters under %s.>: name another, or use conflict=update",
				name, strings.Join(have.Subjects, ", "), name)
		}
		subjects = append(subjects, name+".>")
	}
	subjects = append(subjects, besides...)
	if len(subjects) == len(have.Subjects) {
		return nil, nil
	}
	merged, err := overlay(info.Config, map[string]any{"subjects": subjects})
	if err != nil {
		return nil, newError(CodeServer, OutcomeUnknown, "the configuration of the stream %s could not be read: %s", name, err)
	}
	return q.hub.api(ctx, "STREAM.UPDATE."+name, merged, nil)
}
