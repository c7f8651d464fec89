import CommonCrypto

internal extension JSResultError {
    init(call: JSCall, callError: CAPPluginCallError) {
        self.call = call
        errorMessage = callError.message
        errorDescription = callError.error?.localizedDescription ?? ""
        errorCode = callError.code
        result = callError.resultData ?? .dictionary([:])
    }
}

public extension CapacitorExtensionTypeWrapper where T == Data {

    static func data(base64EncodedOrDataUrl: String) -> Data? {
        if isBase64DataUrl(base64EncodedOrDataUrl) {
            if let url = URL(string: base64EncodedOrDataUrl) {
                do {
                    return try T(contentsOf: url)
                } catch {
                    return nil
                }
            }
            return nil
        } else {
            return T(base64Encoded: base64EncodedOrDataUrl)
        }
    }

    private static func isBase64DataUrl(_ base64EncodedOrDataUrl: String) -> Bool {
        return  base64EncodedOrDataUrl.starts(with: "data:") && base64EncodedOrDataUrl.contains("base64,")
    }
}

// We need a large switch statement because we have a lot of types.
// swiftlint:disable:next cyclomatic_complexity
private func coerceToJSValue(_ value: Any?, formattingDates: Bool) -> JSValue? {
    guard let value = value else {
        return nil
    }
    switch value {
    case let stringValue as String:
        return stringValue
    case let numberValue as NSNumber:
        return numberValue
    case let boolValue as Bool:
        return boolValue
    case let doubleValue as Double:
        return doubleValue
    case let dateValue as Date:
        if formattingDates {
            return dateStringFormatter.string(from: dateValue)
        }
        return dateValue
    case let arrayValue as NSArray:
        return arrayValue.compactMap { coerceToJSValue($0, formattingDates: formattingDates) }
    case let dictionaryValue as NSDictionary:
        let keys = dictionaryValue.allKeys.compactMap { $0 as? String }
        var result: JSObject = [:]
        for key in keys {
            result[key] = coerceToJSValue(dictionaryValue[key], formattingDates: formattingDates)
        }
        return result
    default:
        return nil
    }
}

// Written for this test.
internal func coerceAll(_ values: [Any?]) -> [JSValue] {
    var coerced: [JSValue] = []
    var index = 0
    while index < values.count {
        if let value = coerceToJSValue(values[index], formattingDates: false) {
            coerced.append(value)
        }
        index += 1
    }
    return coerced
}
