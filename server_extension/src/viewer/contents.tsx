// What H5Web shows of a group that has no plot of its own: what is in it, to be chosen from; and of what cannot be shown, why.
import { EntityKind, type ProvidedEntity } from '@h5web/app';
import { createContext, type ReactElement, useContext } from 'react';
import { plainText } from '../text';

/** What is said of an entity beside its name. */
export interface Facts {
  kind: string;
  shape: string;
  type: string;
  size: string;
  /** Why it cannot be shown, where it cannot. */
  reason?: string;
}

/** What a list of a group's members is made with; of a provider. */
export interface Members {
  factsOf(path: string): Facts | undefined;
  /** Show a member otherwise than H5Web would; false where that is to. */
  show(path: string): boolean;
}

export const MembersContext = createContext<Members>({ factsOf: () => undefined, show: () => false });

interface Properties {
  entity: ProvidedEntity;
  onSelect: (path: string) => void;
}

export function Contents({ entity, onSelect }: Properties): ReactElement {
  const members = useContext(MembersContext);
  if (entity.kind !== EntityKind.Group) {
    const reason = members.factsOf(entity.path)?.reason;
    return (
      <p className="c2v-contents">
        {plainText(`${entity.name} cannot be shown${reason ? `: ${reason}` : ' as a plot or a table'}.`)} Download it, or choose
        another dataset.
      </p>
    );
  }
  if (entity.children.length === 0) {
    return <p className="c2v-contents">This group is empty. Its attributes are under “Inspect”.</p>;
  }
  return (
    <div className="c2v-contents">
      <p>This group has no plot of its own: choose what to look at. Its attributes are under “Inspect”.</p>
      <table aria-label={`Contents of ${entity.name || 'this group'}`}>
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col">Shape</th>
            <th scope="col">Type</th>
            <th scope="col">Size</th>
          </tr>
        </thead>
        <tbody>
          {entity.children.map(child => {
            const facts = members.factsOf(child.path);
            return (
              <tr key={child.path}>
                <th scope="row">
                  <button type="button" onClick={() => members.show(child.path) || onSelect(child.path)}>
                    {child.name}
                    {child.kind === EntityKind.Group && '/'}
                  </button>
                </th>
                <td>{facts?.shape}</td>
                <td>{facts?.type || facts?.kind}</td>
                <td>{facts?.size}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
