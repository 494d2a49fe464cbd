package sweetsecurity

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/apss-sensor/apss/shared/outcome"
)

// rejections reads which events an accepting answer does not accept. Known shapes:
//
//	{"rejected":[{"id":"...","reason":"..."}]}
//	{"errors":[{"id":"...","message":"..."}]}
//
// An empty body and an object without these members reject nothing. An error means that the body is neither.
func rejections(body []byte) ([]outcome.Rejection, error) {
	if len(strings.TrimSpace(string(body))) == 0 {
		return nil, nil
	}
	type item struct {
		ID      string `json:"id"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
	}
	var answer struct {
		Rejected list[item] `json:"rejected"`
		Errors   list[item] `json:"errors"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	var rejected []outcome.Rejection
	for _, it := range append(answer.Rejected, answer.Errors...) {
		if it.ID == "" {
			return rejected, errors.New("a rejection has no id")
		}
		reason := it.Reason
		if reason == "" {
			reason = it.Message
		}
		rejected = append(rejected, outcome.Rejection{ID: it.ID, Reason: reason})
	}
	return rejected, nil
}

// list reads a JSON array; what is no array (a count, a null) is an empty one.
type list[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (l *list[T]) UnmarshalJSON(data []byte) error {
	if data[0] != '[' {
		return nil
	}
	return json.Unmarshal(data, (*[]T)(l))
}
