package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// apiError is an error as OpenAI's clients expect it.
type apiError struct {
	status  int
	kind    string
	param   string
	message string
}

func (e *apiError) Error() string { return e.message }

func badRequest(param, format string, args ...any) *apiError {
	message := fmt.Sprintf(format, args...)
	if !strings.Contains(message, param) {
		message = param + " " + message
	}
	return &apiError{http.StatusBadRequest, "invalid_request_error", param, message}
}

func writeJSON(w http.ResponseWriter, v any) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		writeError(w, fmt.Errorf("write the answer: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body.Bytes()) // fails only when the client has gone
}

// asAPI gives every error a status.
func asAPI(err error) *apiError {
	var api *apiError
	switch {
	case errors.As(err, &api):
		return api
	case errors.Is(err, ErrBusy):
		return &apiError{http.StatusTooManyRequests, "rate_limit_exceeded", "", err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &apiError{http.StatusGatewayTimeout, "timeout", "", "the request took longer than the server allows; ask for fewer tokens"}
	case errors.Is(err, context.Canceled):
		return &apiError{499, "canceled", "", "the client went away"}
	case errors.Is(err, errClosed):
		return &apiError{http.StatusServiceUnavailable, "server_error", "", err.Error()}
	}
	return &apiError{http.StatusInternalServerError, "server_error", "", err.Error()}
}

func errorBody(err error) any {
	api := asAPI(err)
	body := map[string]any{"message": api.message, "type": api.kind, "param": nil, "code": nil}
	if api.param != "" {
		body["param"] = api.param
	}
	return map[string]any{"error": body}
}

func writeError(w http.ResponseWriter, err error) {
	api := asAPI(err)
	w.Header().Set("Content-Type", "application/json")
	if api.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(api.status)
	_ = json.NewEncoder(w).Encode(errorBody(err)) // fails only when the client has gone
}
