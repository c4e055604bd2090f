package pybind

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"

	natslease "github.com/RolnickLab/natslease/core"
)

// codeInternal is the code of what only a defect of this package or of its Python side can cause.
const codeInternal natslease.Code = "internal"

// errorText is an error as Python gets it.
type errorText struct {
	Code       natslease.Code    `json:"code"`
	Outcome    natslease.Outcome `json:"outcome"`
	Operation  string            `json:"operation"`
	Message    string            `json:"message"`
	RetryAfter float64           `json:"retry_after"`
	Explain    string            `json:"explain"`
}

func describe(err error) errorText {
	var e *natslease.Error
	if !errors.As(err, &e) {
		e = internalError("%s", err)
	}
	return errorText{
		Code: e.Code, Outcome: e.Outcome, Operation: e.Operation, Message: e.Error(),
		RetryAfter: e.RetryAfter.Seconds(), Explain: e.Explain(),
	}
}

func encodeError(err error) []byte {
	return append([]byte{answerError}, mustMarshal(describe(err))...)
}

// ended is the answer of what returns nothing but an error.
func ended(err error) []byte {
	if err != nil {
		return encodeError(err)
	}
	return []byte{answerDone}
}

func internalError(format string, args ...any) *natslease.Error {
	return &natslease.Error{Code: codeInternal, Outcome: natslease.OutcomeUnknown, Message: fmt.Sprintf(format, args...)}
}

func unknownHandle(what string, handle int64) *natslease.Error {
	e := internalError("there is no %s %d", what, handle)
	e.Outcome = natslease.OutcomeNotSent
	return e
}

// rescue turns a panic into an error answer: one that left an export would end the process.
func rescue(answer *[]byte) {
	if p := recover(); p != nil {
		*answer = encodeError(internalError("panic: %v\n%s", p, debug.Stack()))
	}
}

// mustMarshal is for types of this package, which can always be marshalled.
func mustMarshal(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}
