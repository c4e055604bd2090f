//go:build js && wasm

package main

import (
	"encoding/json"
	"errors"
	"syscall/js"

	natslease "github.com/RolnickLab/natslease/core"
)

// promise runs do beside JavaScript's event loop, which it must not hold up, and settles a Promise with its result, which
// travels as JSON.
func promise(do func() (any, error)) js.Value {
	executor := js.FuncOf(func(_ js.Value, arguments []js.Value) any {
		resolve, reject := arguments[0], arguments[1]
		go func() {
			result, err := do()
			if err != nil {
				reject.Invoke(problem(err))
				return
			}
			encoded, err := json.Marshal(result)
			if err != nil {
				reject.Invoke(problem(err))
				return
			}
			resolve.Invoke(js.Global().Get("JSON").Call("parse", string(encoded)))
		}()
		return nil
	})
	defer executor.Release() // a Promise calls it at once, and once
	return js.Global().Get("Promise").New(executor)
}

// problem is a JavaScript Error with what natslease says: code, outcome and retryAfter in seconds.
func problem(err error) js.Value {
	thrown := js.Global().Get("Error").New(err.Error())
	if e := (*natslease.Error)(nil); errors.As(err, &e) {
		thrown.Set("code", string(e.Code))
		thrown.Set("outcome", string(e.Outcome))
		thrown.Set("retryAfter", e.RetryAfter.Seconds())
	}
	return thrown
}

// exported is a function that JavaScript can call; it throws what fails.
func exported(do func(arguments []js.Value) (js.Value, error)) js.Func {
	return js.FuncOf(func(_ js.Value, arguments []js.Value) any {
		value, err := do(arguments)
		if err != nil {
			return js.Global().Get("Promise").Call("reject", problem(err))
		}
		return value
	})
}

// promised is a function that JavaScript can await.
func promised(do func(arguments []js.Value) (any, error)) js.Func {
	return js.FuncOf(func(_ js.Value, arguments []js.Value) any {
		return promise(func() (any, error) { return do(arguments) })
	})
}

func texts(list js.Value) []string {
	found := make([]string, list.Length())
	for i := range found {
		found[i] = list.Index(i).String()
	}
	return found
}
